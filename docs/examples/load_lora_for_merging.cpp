// Shows what a LoRA changes, layer by layer.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const auto lora_data = load_lora_for_merging("lora.safetensors");  // layer -> lora_A, lora_B, alpha, rank
  for (const auto& [layer, data] : lora_data)
    std::printf("%s rank %d alpha %.1f, A %d x %d, B %d x %d\n", layer.c_str(), static_cast<int>(data.rank), data.alpha,
                static_cast<int>(data.lora_A.size(0)), static_cast<int>(data.lora_A.size(1)), static_cast<int>(data.lora_B.size(0)),
                static_cast<int>(data.lora_B.size(1)));
}
