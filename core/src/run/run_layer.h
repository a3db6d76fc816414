// One layer through its steps: choose codes, measure what is stored, correct the bias.
#pragma once

#include "engine/resources.h"

#include <qmill/core/convert.h>

namespace qmill {

// As read: what the source has, with LoRAs merged.
struct LayerValues {
  at::Tensor weight;
  at::Tensor bias;  // undefined: none is corrected
};

struct FinishedLayer {
  std::vector<StoredTensor> tensors;  // of the layer, then its bias if the plan corrects one
  LayerReport report;
};

FinishedLayer run_layer(const Plan& plan, const Decision& decision, const LayerValues& values, const RunResources& resources);

}  // namespace qmill
