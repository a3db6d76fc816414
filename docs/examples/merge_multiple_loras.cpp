// Merges several LoRAs into one weight. The scale of the second is smaller.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const at::Tensor weight_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  const auto [a1, b1, alpha1, r1] = load_lora_for_merging("lora.safetensors").at("layer");
  const auto [a2, b2, alpha2, r2] = load_lora_for_merging("second_lora.safetensors").at("layer");

  const std::vector<LoraConfig> lora_configs = {
      {.lora_A = a1, .lora_B = b1, .alpha = alpha1, .rank = r1, .scale = 1.0},
      {.lora_A = a2, .lora_B = b2, .alpha = alpha2, .rank = r2, .scale = 0.9},
  };
  const at::Tensor merged_weight = merge_multiple_loras(weight_tensor, lora_configs);
  std::printf("largest change %.6f\n", merged_weight.sub(weight_tensor).abs().max().item<double>());
}
