// Quantizes one weight with learned rounding.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const LearnedRoundingConverter converter({.block_size = 128,
                                            .num_iter = 1000,
                                            .lr = 0.008,
                                            .optimizer = "original",  // or "adamw", "radam"
                                            .lr_schedule = "adaptive",
                                            .top_p = 0.2,
                                            .min_k = 64,
                                            .max_k = 1024});

  const WeightTensor weight_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  const auto [q_tensor, scale, dequantized] = converter.convert(weight_tensor, {.activation_scales = {}});
  std::printf("largest error %.6f\n", weight_tensor.sub(dequantized).abs().max().item<double>());
}
