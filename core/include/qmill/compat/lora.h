// LoRA arithmetic for single tensors, and the matrices of a LoRA file.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <ATen/core/Tensor.h>

#include <map>

namespace qmill {

// The first matrix A of each layer, F32 [rank, ...]: the directions that training used, for calibration. Keys are the layers' names in the
// file without the prefixes of wrappers ("transformer."); where two would be the same, with them. Throws Error(io, input) that names the
// file. Reads with `host`, or with default_host(). [any-thread]
QMILL_CORE_API std::map<std::string, at::Tensor> load_lora_tensors(const Host& host, const std::filesystem::path& file);
QMILL_CORE_API std::map<std::string, at::Tensor> load_lora_tensors(const std::filesystem::path& file);

// W + lora_B lora_A alpha / rank.
struct LoraData {
  at::Tensor lora_A;  // F32 [rank, ...]; of a convolution in CP form the product of its core and A
  at::Tensor lora_B;  // F32 [N, rank, ...]
  double alpha = 1;
  std::int64_t rank = 1;
};

// By layer, as load_lora_tensors names them. alpha is, the first that the file has: the layer's `.alpha`, metadata, the rank
// (docs/lora.md). Throws Error(unsupported) naming a layer whose change is no such product (DoRA, LoHa, LoKr, whole differences):
// the conversion merges these.
QMILL_CORE_API std::map<std::string, LoraData> load_lora_for_merging(const Host& host, const std::filesystem::path& file);
QMILL_CORE_API std::map<std::string, LoraData> load_lora_for_merging(const std::filesystem::path& file);

// weight + lora_B lora_A (alpha / rank) scale, computed in F32, as a new tensor of the weight's type and shape. `weight` [N, ...]: lora_B
// has N rows, lora_A as many values per rank as a row of the weight. Throws Error(usage) for shapes or numbers that do not fit,
// Error(numeric) when a value of the result is not finite though the weight's are. [any-thread]
QMILL_CORE_API at::Tensor merge_lora_into_weight(const at::Tensor& weight, const at::Tensor& lora_A, const at::Tensor& lora_B, double alpha,
                                  std::int64_t rank, double scale = 1.0);

struct LoraConfig {
  at::Tensor lora_A, lora_B;
  double alpha = 1;
  std::int64_t rank = 1;
  double scale = 1.0;
};

// The sum of all changes, each with its scale, cast once at the end: {1.0, 0.9, 0.81} are the scales of a dampened list. With `dampen`, number
// i counts 0.9^i times its scale.
QMILL_CORE_API at::Tensor merge_multiple_loras(const at::Tensor& weight, const std::vector<LoraConfig>& loras, bool dampen = false);

}  // namespace qmill
