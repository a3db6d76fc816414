// Prints the quality of a stored weight.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  const at::Tensor original_tensor = UnifiedSafetensorsLoader("model.safetensors").get_tensor("layer.weight");
  const at::Tensor dequantized_tensor = GPTQInt8Converter().convert(original_tensor).dequantized;

  QualityReporter reporter(/*threshold=*/30.0);
  reporter.add_layer("layer_name", original_tensor, dequantized_tensor);
  std::printf("%s", reporter.get_report_string().c_str());
}
