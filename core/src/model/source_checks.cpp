#include "model/source_checks.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <set>

namespace qmill {
namespace {

bool is_narrow(DType dtype) { return dtype_bits(dtype) <= 8 && dtype != DType::boolean; }

}  // namespace

std::string quantization_evidence(const TensorSource& source) {
  if (source.metadata().contains("_quantization_metadata")) return "its header has '_quantization_metadata'";
  std::set<std::string> names;
  for (const TensorInfo& tensor : source.tensors()) names.insert(tensor.name);
  constexpr std::array kScales = {"weight_scale", "scale_weight", "weight_scale_inv", "weight_scale_2", "weight_s_channel"};
  for (const TensorInfo& tensor : source.tensors()) {
    const std::string& name = tensor.name;
    if (name.ends_with(".comfy_quant") || name == "scaled_fp8" || name.ends_with(".scaled_fp8"))
      return fmt::format("it has the marker '{}'", name);
    constexpr std::string_view suffix = ".weight";
    if (!name.ends_with(suffix) || !is_narrow(tensor.dtype)) continue;
    const std::string stem = name.substr(0, name.size() - suffix.size() + 1);
    for (const char* scale : kScales)
      if (names.contains(stem + scale))
        return fmt::format("'{}' is {} and has the scale '{}'", name, dtype_name(tensor.dtype), stem + scale);
  }
  return {};
}

void require_plain_source(const TensorSource& source) {
  if (const std::string evidence = quantization_evidence(source); !evidence.empty())
    throw Error(ErrorKind::input, fmt::format("the model is quantized already: {}", evidence),
                "quantizing it again would destroy it; use the original model, or decode this one first with `dequantize_source`");
}

}  // namespace qmill
