#include "block_float_format.h"
#include "fp16_format.h"
#include "fp8_format.h"
#include "int8_format.h"
#include "w4a4_format.h"
#include "w4a8_format.h"

#include <array>

namespace qmill {

std::span<const StoredFormat* const> builtin_formats() {
  static const Int8Format int8;
  static const Fp16Format fp16;
  static const W4a4Format int4;
  static const Fp8Format e4m3(DType::f8_e4m3);
  static const Fp8Format e5m2(DType::f8_e5m2);
  static const Nvfp4Format nvfp4;
  static const Mxfp8Format mxfp8;
  static const W4a8Format w4a8;
  static const std::array<const StoredFormat*, 8> formats = {&int8, &fp16, &int4, &e4m3, &e5m2, &nvfp4, &mxfp8, &w4a8};
  return formats;
}

}  // namespace qmill
