// Which biases change with their layer.
#pragma once

#include <qmill/core/plan.h>

#include <functional>

namespace qmill {

// The bias `<base>.bias` [N] of a layer [N,K] that is quantized and whose mean input is known gets the action `correct`, and the layer
// points to it. A bias that a rule keeps, removes or has found to be no floating vector stays as it is.
void plan_corrected_biases(std::vector<Decision>& decisions, const std::function<bool(const TensorInfo& weight)>& knows_mean);

}  // namespace qmill
