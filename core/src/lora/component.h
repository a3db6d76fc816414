// Which model of a pipeline a name in a LoRA file is about, and which model of a checkpoint a layer belongs to.
#pragma once

#include <string>
#include <string_view>

namespace qmill {

enum class ModelKind { unknown, diffusion, text_encoder, other };

struct Component {
  ModelKind kind = ModelKind::unknown;
  int number = 0;  // of text encoders, from 1; 0: not said

  bool operator==(const Component&) const = default;
};

// "the text encoder 2"
std::string component_text(const Component& component);

// A name in a LoRA file, in parts.
struct LoraAddress {
  Component component;            // unknown: the name does not say
  std::string_view rest;          // after what names the component
  bool is_underscored = false;    // every dot is an underscore
  bool may_be_any_model = false;  // "transformer." is usual for diffusion models, and part of some text encoders' own names
};
LoraAddress lora_address(std::string_view name);

// A layer of a checkpoint that holds several models, by its prefix; unknown: it has none of these, and `rest` is the whole name.
struct LayerAddress {
  Component component;
  std::string_view prefix;
  std::string_view rest;
};
LayerAddress layer_address(std::string_view base);

// Without the prefixes that wrappers put before a model's own names ("model.diffusion_model."), as often as there is one.
std::string_view without_prefixes(std::string_view name);

}  // namespace qmill
