#include "model/layers.h"

namespace qmill {

bool is_layer(const TensorInfo& tensor) {
  if (tensor.shape.size() != 2 || !is_floating(tensor.dtype)) return false;
  if (tensor.name.ends_with(".weight")) return true;
  const auto contains = [&](std::string_view part) { return tensor.name.find(part) != std::string::npos; };
  return contains("lora_A") || contains("lora_B") || contains("lora_up") || contains("lora_down");
}

}  // namespace qmill
