#include <qmill/core/foreign_quantizers.h>

#include <array>
#include <string_view>
#include <unordered_map>

namespace qmill {
namespace {

enum class Kind { any, floating, integer, i8, u8, i16, i32, u32, at_most_8_bits };

bool is_of(Kind kind, DType dtype) {
  switch (kind) {
    case Kind::any:
      return true;
    case Kind::floating:
      return is_floating(dtype);
    case Kind::integer:
      return is_integer(dtype);
    case Kind::i8:
      return dtype == DType::i8;
    case Kind::u8:
      return dtype == DType::u8;
    case Kind::i16:
      return dtype == DType::i16;
    case Kind::i32:
      return dtype == DType::i32;
    case Kind::u32:
      return dtype == DType::u32;
    case Kind::at_most_8_bits:
      return dtype_bits(dtype) <= 8 && dtype != DType::boolean;
  }
  return false;
}

// Tensors of one stem: STEM + suffix.
struct Part {
  std::string_view suffix;
  Kind kind = Kind::any;
};

struct Signature {
  std::string_view tool;
  std::array<Part, 3> parts;  // all of them; those without a suffix do not count
};

// The first that fits decides: what is named further up is more specific.
constexpr Signature kSignatures[] = {
    {"bitsandbytes (nf4)", {{{".quant_state.bitsandbytes__nf4"}}}},
    {"bitsandbytes (fp4)", {{{".quant_state.bitsandbytes__fp4"}}}},
    {"bitsandbytes (4 bits)", {{{".absmax"}, {".quant_map"}}}},
    {"bitsandbytes (int8)", {{{".SCB", Kind::floating}, {".weight", Kind::i8}}}},
    {"bitsandbytes (int8)", {{{".weight", Kind::i8}, {".weight_format", Kind::u8}}}},
    {"quanto", {{{"._data._data", Kind::integer}, {"._scale"}}}},
    {"quanto", {{{"._data", Kind::at_most_8_bits}, {"._scale"}}}},
    {"torchao", {{{"._weight_qdata"}, {"._weight_scale"}}}},
    {"SVDQuant (nunchaku)", {{{".qweight", Kind::integer}, {".wscales"}}}},
    {"GPTQ", {{{".qweight", Kind::i32}, {".scales"}, {".g_idx", Kind::i32}}}},
    {"AWQ, or GPTQ without g_idx", {{{".qweight", Kind::i32}, {".qzeros"}, {".scales"}}}},
    {"compressed-tensors", {{{".weight_packed", Kind::integer}, {".weight_scale"}}}},
    {"compressed-tensors", {{{".weight", Kind::at_most_8_bits}, {".weight_scale"}, {".weight_zero_point"}}}},
    {"HQQ", {{{".W_q"}, {".meta"}}}},
    {"HQQ", {{{".W_q"}, {".scale"}, {".zero"}}}},
    {"HQQ", {{{".W_q", Kind::integer}}}},
    {"EXL2", {{{".q_weight", Kind::i32}, {".q_scale"}}}},
    {"EXL3", {{{".trellis", Kind::i16}, {".svh"}}}},
    {"AQLM", {{{".codes", Kind::integer}, {".codebooks"}}}},
    {"QuIP#", {{{".Qidxs", Kind::integer}}}},
    {"VPTQ", {{{".centroids.weight"}, {".indices", Kind::integer}}}},
    {"MLX", {{{".weight", Kind::u32}, {".scales"}}}},
    {"OpenAI's MXFP4", {{{"_blocks", Kind::u8}, {"_scales", Kind::u8}}}},
    {"DFloat11", {{{".encoded_exponent", Kind::u8}, {".sign_mantissa", Kind::u8}}}},
    {"SDNQ", {{{".weight", Kind::integer}, {".scale", Kind::floating}}}},
    {"a tool that packs integers (GPTQ, AWQ or similar)", {{{".qweight", Kind::integer}}}},
};

using ByName = std::unordered_map<std::string_view, DType>;

bool fits(const Signature& signature, const TensorInfo& tensor, const ByName& tensors) {
  const Part& first = signature.parts.front();
  if (!tensor.name.ends_with(first.suffix) || !is_of(first.kind, tensor.dtype)) return false;
  const std::string stem = tensor.name.substr(0, tensor.name.size() - first.suffix.size());
  for (const Part& part : signature.parts) {
    if (part.suffix.empty()) continue;
    const auto found = tensors.find(stem + std::string(part.suffix));
    if (found == tensors.end() || !is_of(part.kind, found->second)) return false;
  }
  // A marker says what the layer is.
  return !tensors.contains(stem + ".comfy_quant");
}

}  // namespace

bool is_integer(DType dtype) {
  switch (dtype) {
    case DType::u8:
    case DType::i8:
    case DType::i16:
    case DType::u16:
    case DType::i32:
    case DType::u32:
    case DType::i64:
    case DType::u64:
      return true;
    default:
      return false;
  }
}

std::optional<ForeignQuantizer> find_foreign_quantizer(const std::vector<TensorInfo>& tensors) {
  ByName by_name;
  for (const TensorInfo& tensor : tensors) by_name.emplace(tensor.name, tensor.dtype);
  for (const Signature& signature : kSignatures)
    for (const TensorInfo& tensor : tensors)
      if (fits(signature, tensor, by_name)) return ForeignQuantizer{std::string(signature.tool), tensor.name};
  return std::nullopt;
}

}  // namespace qmill
