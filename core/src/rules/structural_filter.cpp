#include "rules/structural_filter.h"

#include "model/layers.h"

#include <qmill/core/host.h>

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>
#include <string_view>

namespace qmill {
namespace {

// In lower case. `parts` may be anywhere in a name, `words` stand between dots and underscores, `segments` between dots.
struct Kind {
  std::string_view reason;
  std::initializer_list<std::string_view> parts;
  std::initializer_list<std::string_view> words;
  std::initializer_list<std::string_view> segments;
};

const Kind kKinds[] = {
    {"an embedding", {"embed", "embd", "pos_emb", "time_emb", "label_emb", "_rel_b"}, {"wte", "wpe"}, {"shared"}},
    {"modulation", {"modulation", "adaln"}, {"mod"}, {}},
    {"a norm", {"norm"}, {"ln"}, {}},
    {"a last layer", {"lm_head", "final_layer"}, {}, {}},
};

std::vector<std::string_view> split(std::string_view name, std::string_view separators) {
  std::vector<std::string_view> pieces;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find_first_of(separators, begin), name.size());
    pieces.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return pieces;
}

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

// A number, and after it a name that is not yet that of the parameter.
bool is_in_block(std::string_view name) {
  const std::vector<std::string_view> segments = split(name, ".");
  for (std::size_t i = 1; i + 2 < segments.size(); ++i)
    if (is_number(segments[i]) && !is_number(segments[i + 1])) return true;
  return false;
}

bool is_of(const Kind& kind, std::string_view name) {
  const auto has_one_of = [](const std::vector<std::string_view>& pieces, const auto& wanted) {
    return std::find_first_of(pieces.begin(), pieces.end(), wanted.begin(), wanted.end()) != pieces.end();
  };
  return std::any_of(kind.parts.begin(), kind.parts.end(),
                     [&](std::string_view part) { return name.find(part) != std::string_view::npos; }) ||
         has_one_of(split(name, "._"), kind.words) || has_one_of(split(name, "."), kind.segments);
}

}  // namespace

StructuralFilter::StructuralFilter(const std::vector<TensorInfo>& tensors)
    : info_{std::string(kStructuralFilter), "image",
            "any model: keeps embeddings, modulation, norms, and layers outside the repeated blocks"},
      has_blocks_(std::any_of(tensors.begin(), tensors.end(),
                              [](const TensorInfo& tensor) { return is_layer(tensor) && is_in_block(tensor.name); })) {}

FilterVerdict StructuralFilter::classify(const TensorInfo& tensor) const {
  std::string name = tensor.name;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Kind& kind : kKinds)
    if (is_of(kind, name)) return {Treatment::keep, std::string(kind.reason)};
  if (has_blocks_ && !is_in_block(tensor.name)) return {Treatment::keep, "outside the blocks"};
  return {};
}

}  // namespace qmill
