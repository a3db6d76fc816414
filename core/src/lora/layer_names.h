// The layers of a model, found by the names that other files give them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// Without the prefixes that wrappers put before a model's own names ("model.diffusion_model."), as often as there is one.
std::string_view without_prefixes(std::string_view name);

// Names are bases: without ".weight". [any-thread]
class LayerNames {
 public:
  explicit LayerNames(std::vector<std::string> bases);

  const std::vector<std::string>& bases() const { return bases_; }

  // The number of the base that is `name`, else of the one that equals it once both are without prefixes. Throws Error(input) that names
  // them when there are several.
  std::optional<std::size_t> find(std::string_view name) const;

  // The same for a name in which every dot is an underscore (kohya: "blocks_0_attn_q").
  std::optional<std::size_t> find_underscored(std::string_view name) const;

 private:
  using Index = std::multimap<std::string, std::size_t, std::less<>>;
  std::optional<std::size_t> only(const Index& index, std::string_view key, std::string_view name) const;

  std::vector<std::string> bases_;
  Index exact_, short_, underscored_;
};

}  // namespace qmill
