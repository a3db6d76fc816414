#include "lora/layer_names.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

namespace qmill {
namespace {

std::string underscored(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}

}  // namespace

std::string_view without_prefixes(std::string_view name) {
  // Longer ones first: "model.diffusion_model." is one prefix, not two.
  constexpr std::array<std::string_view, 13> kPrefixes = {"base_model.model.",
                                                          "model.diffusion_model.",
                                                          "diffusion_model.",
                                                          "text_encoder_2.",
                                                          "text_encoder.",
                                                          "text_encoders.",
                                                          "text_model.",
                                                          "transformer.",
                                                          "_orig_mod.",
                                                          "module.",
                                                          "model.",
                                                          "unet.",
                                                          "net."};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : kPrefixes)
      if (name.size() > prefix.size() && name.starts_with(prefix)) {
        name.remove_prefix(prefix.size());
        again = true;
        break;
      }
  }
  return name;
}

LayerNames::LayerNames(std::vector<std::string> bases) : bases_(std::move(bases)) {
  for (std::size_t i = 0; i < bases_.size(); ++i) {
    const std::string& base = bases_[i];
    const std::string_view own = without_prefixes(base);
    exact_.emplace(base, i);
    short_.emplace(own, i);
    underscored_.emplace(underscored(own), i);
    if (own != base) underscored_.emplace(underscored(base), i);
  }
}

std::optional<std::size_t> LayerNames::only(const Index& index, std::string_view key, std::string_view name) const {
  const auto [begin, end] = index.equal_range(key);
  if (begin == end) return std::nullopt;
  std::set<std::string> found;
  for (auto it = begin; it != end; ++it) found.insert(bases_[it->second]);
  if (found.size() > 1)
    throw Error(ErrorKind::input, fmt::format("'{}' could be each of the layers '{}'", name, fmt::join(found, "', '")),
                "name the layer as the model does");
  return begin->second;
}

std::optional<std::size_t> LayerNames::find(std::string_view name) const {
  if (const auto found = only(exact_, name, name)) return found;
  return only(short_, without_prefixes(name), name);
}

std::optional<std::size_t> LayerNames::find_underscored(std::string_view name) const { return only(underscored_, name, name); }

}  // namespace qmill
