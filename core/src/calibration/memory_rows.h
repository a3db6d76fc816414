// A weight and the inputs of its layer that a program holds in memory.
#pragma once

#include "engine/resources.h"

#include <qmill/layer_context.h>

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace qmill {

// "F32 4 x 8", for messages about what a caller gives.
std::string tensor_text(const at::Tensor& tensor);

// What a caller gives as a weight [N,K], detached and contiguous. Throws Error(usage) for what is no floating matrix with values on the CPU.
at::Tensor given_weight(const at::Tensor& weight);

// What a caller gives as `name`, as contiguous F32 of this shape (-1: any number of rows). Throws Error(usage) for another type, shape or
// device, Error(numeric) for values that are not finite.
at::Tensor given_inputs(const char* name, const at::Tensor& tensor, const std::vector<std::int64_t>& shape);

// `rows` [T,K], F32. `seed` decides which of five are kept apart. Borrows `resources`.
std::unique_ptr<LayerCalibration> memory_rows(const at::Tensor& rows, std::int64_t seed, const RunResources& resources);

// Of a Hessian [K,K] of any scale, symmetric and finite, F32.
std::unique_ptr<LayerCalibration> memory_hessian(const at::Tensor& hessian);

}  // namespace qmill
