// Alpha as some trainers state it in the metadata of a file: in a key of its own, for the whole file or one component.
#pragma once

#include "lora/component.h"

#include <map>
#include <optional>
#include <vector>

namespace qmill {

// Throws Error(input) unless alpha is a number from 0 to a million.
double plausible_alpha(double alpha, std::string_view what);

// "lora_alpha", "network_alpha", "ss_network_alpha" (kohya) and "alpha", also after a component: "transformer.lora_alpha".
class FlatAlphas {
 public:
  explicit FlatAlphas(const std::map<std::string, std::string>& metadata);

  // That of the component, else that of the whole file. An unknown component has that of the only component that the keys name, if there
  // is none of the whole file. Throws Error(input) that names the key: no plausible number, or two keys that contradict each other.
  std::optional<double> of(const Component& component) const;

 private:
  struct Stated {
    std::string key, value;
    Component component;  // unknown: of the whole file
  };
  std::optional<double> first(const std::vector<const Stated*>& stated) const;

  std::vector<Stated> stated_;
};

// Whether what is stated for `stated` is meant for `component`.
bool is_same_component(const Component& stated, const Component& component);

}  // namespace qmill
