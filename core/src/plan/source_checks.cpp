#include "source_checks.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <set>

namespace qmill {
namespace {

[[noreturn]] void reject(std::string evidence) {
  throw Error(ErrorKind::input, fmt::format("the model is quantized already: {}", std::move(evidence)),
              "quantizing it again would destroy it; use the original model");
}

bool is_narrow(DType dtype) { return dtype_bits(dtype) <= 8 && dtype != DType::boolean; }

}  // namespace

void require_plain_source(const TensorSource& source) {
  if (source.metadata().contains("_quantization_metadata")) reject("its header has '_quantization_metadata'");
  std::set<std::string> names;
  for (const TensorInfo& tensor : source.tensors()) names.insert(tensor.name);
  constexpr std::array kScales = {"weight_scale", "scale_weight", "weight_scale_inv", "weight_scale_2", "weight_s_channel"};
  for (const TensorInfo& tensor : source.tensors()) {
    const std::string& name = tensor.name;
    if (name.ends_with(".comfy_quant") || name == "scaled_fp8" || name.ends_with(".scaled_fp8"))
      reject(fmt::format("it has the marker '{}'", name));
    constexpr std::string_view suffix = ".weight";
    if (!name.ends_with(suffix) || !is_narrow(tensor.dtype)) continue;
    const std::string stem = name.substr(0, name.size() - suffix.size() + 1);
    for (const char* scale : kScales)
      if (names.contains(stem + scale))
        reject(fmt::format("'{}' is {} and has the scale '{}'", name, dtype_name(tensor.dtype), stem + scale));
  }
}

}  // namespace qmill
