// Hessians for layers whose inputs are not known, but something that hints at them is.
#pragma once

#include "engine/task_pool.h"

#include <ATen/core/Tensor.h>

namespace qmill {

// F32 [K,K]: I + A^T A, the second part scaled to the trace of the first, for the A [rank,K] of a LoRA: the directions that were worth
// training.
at::Tensor lora_hessian(const at::Tensor& down, TaskPool& tasks);

// max_i |W_ij|: F32 [K] of a weight [N,K] of a floating type.
at::Tensor largest_of_columns(const at::Tensor& weight, TaskPool& tasks);

// SmoothQuant's t_j = a_j^alpha / w_j^(1 - alpha), from the largest magnitudes of input and weight per column (arXiv 2211.10438, eq. 4).
// At least 1e-5; 1 where it is not finite.
at::Tensor smoothing_factors(const at::Tensor& input_max, const at::Tensor& weight_max, double alpha);

// F32 [K,K]: diag(t^2), scaled to the trace of the identity.
at::Tensor diagonal_hessian(const at::Tensor& factors);

}  // namespace qmill
