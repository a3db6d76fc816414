// One layer: from its values to its stored tensors, and how good they are.
#pragma once

#include "resources.h"

#include <qmill/core/plan.h>
#include <qmill/core/quality.h>

namespace qmill {

struct LayerResult {
  StoredLayer stored;
  at::Tensor bias;  // corrected; undefined: as it was
  std::vector<std::string> notes;
  LayerQuality quality;
  double seconds = 0;
};

// `bias`, if it is defined, is corrected for the mean of the layer's inputs where that is known. Throws Error that names plugin and
// tensor; Error(plugin) when the result is not what the plan said.
LayerResult run_layer(const Decision& decision, const at::Tensor& weight, std::int64_t seed, const RunResources& resources,
                      const at::Tensor& bias = {});

}  // namespace qmill
