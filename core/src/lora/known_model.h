// What plugins know of a model, for finding its layers.
#pragma once

#include "lora/layer_names.h"

#include <qmill/core/host.h>

namespace qmill {

// By the architecture of `model`. The names live as long as the host. Throws Error(plugin) from filters that are code.
KnownModel known_model(const Host& host, const TensorSource& model);

}  // namespace qmill
