#include <qmill/tensor_info.h>

#include <array>

namespace qmill {
namespace {

struct TypeRow {
  DType dtype;
  std::string_view name;
  int bits;
  bool floating;
};

constexpr std::array kTypes = {
    TypeRow{DType::boolean, "BOOL", 8, false},    TypeRow{DType::u8, "U8", 8, false},
    TypeRow{DType::i8, "I8", 8, false},           TypeRow{DType::f8_e5m2, "F8_E5M2", 8, true},
    TypeRow{DType::f8_e4m3, "F8_E4M3", 8, true},  TypeRow{DType::f8_e8m0, "F8_E8M0", 8, false},
    TypeRow{DType::i16, "I16", 16, false},        TypeRow{DType::u16, "U16", 16, false},
    TypeRow{DType::f16, "F16", 16, true},         TypeRow{DType::bf16, "BF16", 16, true},
    TypeRow{DType::i32, "I32", 32, false},        TypeRow{DType::u32, "U32", 32, false},
    TypeRow{DType::f32, "F32", 32, true},         TypeRow{DType::i64, "I64", 64, false},
    TypeRow{DType::u64, "U64", 64, false},        TypeRow{DType::f64, "F64", 64, true},
    TypeRow{DType::c64, "C64", 64, false},        TypeRow{DType::f4, "F4", 4, false},
    TypeRow{DType::f6_e2m3, "F6_E2M3", 6, false}, TypeRow{DType::f6_e3m2, "F6_E3M2", 6, false},
};

const TypeRow& row(DType dtype) {
  for (const TypeRow& type : kTypes)
    if (type.dtype == dtype) return type;
  return kTypes[0];  // not reached: the table holds every enumerator
}

}  // namespace

std::string_view dtype_name(DType dtype) { return row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const TypeRow& type : kTypes)
    if (type.name == name) return type.dtype;
  return std::nullopt;
}

int dtype_bits(DType dtype) { return row(dtype).bits; }

bool is_floating(DType dtype) { return row(dtype).floating; }

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dimension : shape) count *= dimension;
  return count;
}

std::int64_t TensorInfo::bytes() const { return (elements() * dtype_bits(dtype) + 7) / 8; }

std::string TensorInfo::shape_text() const {
  if (shape.empty()) return "scalar";
  std::string text;
  for (const std::int64_t dimension : shape) text += (text.empty() ? "" : " x ") + std::to_string(dimension);
  return text;
}

}  // namespace qmill
