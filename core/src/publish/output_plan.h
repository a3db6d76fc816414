// The bytes of the output before there are any: order, offsets and header of the safetensors file.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// Tensors by descending element size, then name, so that each is aligned. Throws Error(input) when a name is there twice, or the header is
// larger than readers take.
OutputPlan plan_output(std::vector<TensorInfo> tensors, const std::map<std::string, std::string>& metadata);

}  // namespace qmill
