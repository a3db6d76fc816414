// Quantizes one weight in memory.
#pragma once

#include <qmill/core/convert.h>
#include <qmill/tensor.h>

namespace qmill {

// What is known of the inputs of a weight [N,K]: one of these, or none. Floating, on the CPU, finite.
struct WeightInputs {
  at::Tensor hessian = {};  // [K,K]: X^T X of inputs X [T,K], of any scale
  at::Tensor rows = {};     // [..., K]: inputs; one of five rows is kept apart, and the output error is measured on these
};

struct QuantizedWeight {
  std::vector<StoredTensor> tensors;  // as a file would hold them, the codes first; names begin with the layer's
  at::Tensor dequantized;             // F32 [N,K]: what a reader computes from them, exactly
  LayerReport report;
};

// `weight`: floating [N,K], on the CPU, with values. Uses the target, the seed, the threads and the thresholds of `options`; `auto` takes a
// calibrated quantizer where inputs are given. `name`: of the tensor, such as "blocks.0.q.weight"; it seeds what is random. Throws
// Error(usage) for shapes and types that do not fit, Error(numeric) for values that are not finite, Error(unsupported) for a shape that the
// format cannot store. [any-thread]
QMILL_CORE_API QuantizedWeight quantize_weight(const Host& host, const ConvertOptions& options, const std::string& name,
                                               const at::Tensor& weight, const WeightInputs& inputs = {},
                                               const std::atomic<bool>* cancel = nullptr);

// The same for inputs of which a program knows something else.
QMILL_CORE_API QuantizedWeight quantize_weight(const Host& host, const ConvertOptions& options, const std::string& name,
                                               const at::Tensor& weight, const LayerCalibration* inputs,
                                               const std::atomic<bool>* cancel = nullptr);

}  // namespace qmill
