// Reads the matrices of a LoRA that show which inputs of a layer matter.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const auto lora_tensors = load_lora_tensors("lora.safetensors");  // layer -> A [rank, in_features]
  for (const auto& [layer, matrix] : lora_tensors)
    std::printf("%s %d x %d\n", layer.c_str(), static_cast<int>(matrix.size(0)), static_cast<int>(matrix.size(1)));
}
