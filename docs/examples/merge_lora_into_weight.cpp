// Merges one LoRA into one weight.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const at::Tensor weight_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  const auto [lora_A, lora_B, alpha, rank] = load_lora_for_merging("lora.safetensors").at("layer");
  const at::Tensor merged_weight = merge_lora_into_weight(weight_tensor, lora_A, lora_B, alpha, rank, /*scale=*/1.0);
  std::printf("largest change %.6f\n", merged_weight.sub(weight_tensor).abs().max().item<double>());
}
