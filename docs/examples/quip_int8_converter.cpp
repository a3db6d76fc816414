// Quantizes one weight with QuIP.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const QuIPInt8Converter converter({.block_size = 128,
                                     .device = "cuda",
                                     .actorder = true,
                                     .use_hadamard = true,
                                     .seed = std::nullopt,
                                     .use_triton = false,
                                     .lazy_updates = true,
                                     .store_transformed = false,
                                     .requant_scheme = "tensor",
                                     .requant_tensor_use_per_row_scale = true,
                                     .streaming_mode = "balanced",
                                     .streaming_thresholds = {},
                                     .no_memory_limits = false,
                                     .use_checkpointed_ldlq = false,
                                     .checkpointed_ldlq_threshold = 8192,
                                     .checkpoint_segments = 4});

  const WeightTensor weight_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  // H: a Hessian, if there is one.
  const auto [q_tensor, scale, dequantized] =
      converter.convert(weight_tensor, {.H = {}, .activation_scales = {}, .smoothquant_alpha = 0.5});
  std::printf("largest error %.6f\n", weight_tensor.sub(dequantized).abs().max().item<double>());
}
