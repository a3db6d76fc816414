#include "true_shapes.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace gguf {
namespace {

// Nothing where the product of the dimensions that are not 0 is too large: eight dimensions of 31 bits do not fit 63 bits together.
std::optional<std::int64_t> values_of(const Shape& shape) {
  std::uint64_t product = 1;
  bool is_empty = false;
  for (const std::int64_t dimension : shape) {
    if (dimension == 0) {
      is_empty = true;
      continue;
    }
    if (static_cast<std::uint64_t>(dimension) > kMaxValues / product) return std::nullopt;
    product *= static_cast<std::uint64_t>(dimension);
  }
  return is_empty ? 0 : static_cast<std::int64_t>(product);
}

}  // namespace

void restore_folded(Entry& entry, const std::map<std::string, Shape>& original_shapes) {
  const auto found = original_shapes.find(entry.info.name);
  if (found == original_shapes.end()) return;
  const std::optional<std::int64_t> values = values_of(found->second);
  qmill::TensorInfo original = entry.info;
  original.shape = found->second;
  if (values != entry.info.elements())
    throw qmill::Error(qmill::ErrorKind::input,
                       fmt::format("its shape is {}, its key 'comfy.gguf.orig_shape.{}' says {}, which is {}", entry.info.shape_text(),
                                   entry.info.name, original.shape_text(), values ? "another number of values" : "too large"),
                       "the file is damaged; get it again")
        .in(fmt::format("tensor '{}'", entry.info.name));
  entry.info = std::move(original);
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
