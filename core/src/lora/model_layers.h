// The layers of a model as LoRAs see them: every tensor is of one.
#pragma once

#include "lora/layer_names.h"

#include <qmill/loader.h>

namespace qmill {

// The tensors of one layer of a model, by number.
struct ModelLayer {
  std::string base;
  std::optional<std::size_t> weight;
  std::optional<std::size_t> bias;
};

std::vector<ModelLayer> model_layers(const TensorSource& model);

// The same layers, in the same order.
std::vector<NamedLayer> named_layers(const TensorSource& model, const std::vector<ModelLayer>& layers);

}  // namespace qmill
