// What is known of a tensor without reading it: name, element type, shape.
#pragma once

#include <qmill/export.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// Element types, by their safetensors names. The types below one byte are carried, not computed with.
enum class DType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  i64,
  u64,
  f64,
  c64,
  f4,
  f6_e2m3,
  f6_e3m2,
};

QMILL_API std::string_view dtype_name(DType dtype);                 // "BF16", "I8", ...
QMILL_API std::optional<DType> parse_dtype(std::string_view name);  // by that name; nothing if unknown
QMILL_API int dtype_bits(DType dtype);
QMILL_API bool is_floating(DType dtype);  // real numbers that can be quantized: F64, F32, F16, BF16, F8_E4M3, F8_E5M2

struct QMILL_API TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // no dimension is negative; elements() fits 63 bits (loaders check it)

  std::int64_t elements() const;
  std::int64_t bytes() const;
  std::string shape_text() const;  // "64 x 1024"; "scalar" without dimensions

  bool operator==(const TensorInfo&) const = default;
};

}  // namespace qmill
