#include "true_shapes.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace gguf {

void restore_folded(std::vector<Entry>& entries, const std::map<std::string, Shape>& original_shapes) {
  for (Entry& entry : entries) {
    const auto found = original_shapes.find(entry.info.name);
    if (found == original_shapes.end()) continue;
    // Eight dimensions of 31 bits do not fit 63 bits together.
    const std::int64_t elements = entry.info.elements();
    std::int64_t room = elements;
    bool fits = true;
    for (const std::int64_t dimension : found->second) {
      if (elements != 0 && (dimension == 0 || room % dimension != 0)) fits = false;
      if (dimension != 0) room /= dimension;
    }
    const bool is_empty = std::find(found->second.begin(), found->second.end(), 0) != found->second.end();
    fits = elements == 0 ? is_empty : fits && room == 1;
    qmill::TensorInfo original = entry.info;
    original.shape = found->second;
    if (!fits)
      throw qmill::Error(qmill::ErrorKind::input,
                         fmt::format("its shape is {}, its key 'comfy.gguf.orig_shape.{}' says {}, which is another number of values",
                                     entry.info.shape_text(), entry.info.name, original.shape_text()),
                         "the file is damaged; get it again")
          .in(fmt::format("tensor '{}'", entry.info.name));
    entry.info = std::move(original);
  }
}

std::size_t restore_linear(std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata) {
  const auto is_of_sdxl = [](const Entry& entry) { return entry.info.name.ends_with("label_emb.0.0.weight"); };
  if (metadata.contains("general.architecture") || std::none_of(entries.begin(), entries.end(), is_of_sdxl)) return 0;
  std::size_t restored = 0;
  for (Entry& entry : entries) {
    Shape& shape = entry.info.shape;
    const bool is_projection = entry.info.name.ends_with(".proj_in.weight") || entry.info.name.ends_with(".proj_out.weight");
    if (!is_projection || shape.size() <= 2 || shape.back() != 1) continue;
    while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
    ++restored;
  }
  return restored;
}

}  // namespace gguf
