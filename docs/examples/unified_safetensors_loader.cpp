// Reads the tensors of a model one by one.
#include <qmill/qmill.h>

#include <cstdio>

using namespace qmill;

int main() {
  UnifiedSafetensorsLoader loader("model.safetensors", /*low_memory=*/true);
  for (const std::string& key : loader.keys()) std::printf("key %s\n", key.c_str());
  for (const auto& [key, value] : loader.metadata()) std::printf("metadata %s = %s\n", key.c_str(), value.c_str());

  const std::vector<std::int64_t> shape = loader.get_shape("layer.weight");  // without loading
  std::printf("shape %d x %d, %d dimensions\n", static_cast<int>(shape[0]), static_cast<int>(shape[1]),
              static_cast<int>(loader.get_ndim("layer.weight")));

  const at::Tensor tensor = loader.get_tensor("layer.weight");
  std::printf("first value %.6f\n", tensor.flatten().select(0, 0).item<double>());
  loader.mark_processed("layer.weight");
  loader.close();  // or leave it to the end of the scope
}
