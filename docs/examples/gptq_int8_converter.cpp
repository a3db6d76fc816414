// Quantizes one weight with GPTQ and the Hessian of its inputs.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const GPTQInt8Converter converter({.block_size = 128, .device = "cuda", .actorder = true, .lazy_updates = true, .use_triton = false});

  const WeightTensor weight_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  const at::Tensor inputs = UnifiedSafetensorsLoader("inputs.safetensors").get_tensor("layer.input");
  const HessianMatrix hessian_matrix = inputs.t().matmul(inputs);
  const auto [q_tensor, scale, dequantized] = converter.convert(weight_tensor, {.H = hessian_matrix});
  const at::Tensor error = inputs.matmul(weight_tensor.sub(dequantized).t());
  std::printf("output error %.6f\n", error.square().sum().item<double>());
}
