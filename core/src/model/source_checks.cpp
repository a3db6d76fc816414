#include "model/source_checks.h"

#include <qmill/core/foreign_quantizers.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <set>

namespace qmill {
namespace {

using Names = std::set<std::string>;

bool is_narrow(DType dtype) { return dtype_bits(dtype) <= 8 && dtype != DType::boolean; }

bool is_marker(std::string_view name) { return name.ends_with(".comfy_quant") || name == "scaled_fp8" || name.ends_with(".scaled_fp8"); }

// A weight of few bits beside a scale.
std::string scale_evidence(const TensorInfo& tensor, const Names& names) {
  constexpr std::string_view kWeight = ".weight";
  constexpr std::array kScales = {"weight_scale", "scale_weight", "weight_scale_inv", "weight_scale_2", "weight_s_channel"};
  if (!tensor.name.ends_with(kWeight)) return {};
  const std::string stem = tensor.name.substr(0, tensor.name.size() - kWeight.size() + 1);
  if (is_narrow(tensor.dtype))
    for (const char* scale : kScales)
      if (names.contains(stem + scale))
        return fmt::format("'{}' is {} and has the scale '{}'", tensor.name, dtype_name(tensor.dtype), stem + scale);
  return {};
}

}  // namespace

std::string quantization_evidence(const TensorSource& source) {
  if (source.metadata().contains("_quantization_metadata")) return "its header has '_quantization_metadata'";
  Names names;
  for (const TensorInfo& tensor : source.tensors()) names.insert(tensor.name);
  for (const TensorInfo& tensor : source.tensors()) {
    if (is_marker(tensor.name)) return fmt::format("it has the marker '{}'", tensor.name);
    if (std::string evidence = scale_evidence(tensor, names); !evidence.empty()) return evidence;
  }
  return {};
}

std::vector<std::string> unexplained_codes(const TensorSource& source) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : source.tensors())
    if (tensor.name.ends_with(".weight") && tensor.shape.size() > 1 && tensor.elements() != 0 &&
        (is_integer(tensor.dtype) || dtype_bits(tensor.dtype) < 8))
      names.push_back(tensor.name);
  return names;
}

void refuse_foreign_quantizers(const TensorSource& source) {
  if (const std::optional<ForeignQuantizer> found = find_foreign_quantizer(source.tensors()))
    throw Error(ErrorKind::input, fmt::format("the model is quantized already, by {}: it has the tensor '{}'", found->tool, found->tensor),
                "qmill does not decode what that tool stores; convert from the unquantized model");
}

void require_plain_source(const TensorSource& source) {
  refuse_foreign_quantizers(source);
  if (const std::string evidence = quantization_evidence(source); !evidence.empty())
    throw Error(ErrorKind::input, fmt::format("the model is quantized already: {}", evidence),
                "quantizing it again would destroy it; use the original model, or decode this one first with `dequantize_source`");
}

}  // namespace qmill
