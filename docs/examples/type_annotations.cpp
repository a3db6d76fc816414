// The types that functions of the API use.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

namespace {

// A Hessian from the inputs of a layer.
HessianMatrix hessian_of(const at::Tensor& inputs) { return inputs.t().matmul(inputs).div(inputs.size(0)); }

at::Tensor dequantized(const at::Tensor& codes, const ScaleTensor& scale) { return codes.to(COMPUTE_DTYPE).mul(scale); }

}  // namespace

int main() {
  const WeightTensor weight = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");  // [out_features, in_features]
  const at::Tensor inputs = UnifiedSafetensorsLoader("inputs.safetensors").get_tensor("layer.input");
  const auto converted = GPTQInt8Converter().convert(weight, {.H = hessian_of(inputs)});
  const bool agree = dequantized(converted.q, converted.scale).equal(converted.dequantized);

  const FilterFlags filter_flags = {{"t5xxl", false}};
  const LayerConfig layer_config = parse_layer_config(R"({"layer_patterns": {"attention": {"format": "fp16"}}})");
  convert_to_int8(
      {.input_file = "model.safetensors", .output_file = "typed.safetensors", .filter_flags = filter_flags, .layer_config = layer_config});
  std::printf("%s\n", agree ? "agree" : "differ");
}
