#include "small_floats.h"

#include <qmill/numerics/row_kernels.h>

#include <c10/util/Float8_e4m3fn.h>

#include <array>

namespace qmill {
namespace {

Grid symmetric_grid(const float* magnitudes, int highest) {
  Grid grid{-highest, highest};
  for (int code = -highest; code <= highest; ++code) grid.values.push_back(code < 0 ? -magnitudes[-code] : magnitudes[code]);
  return grid;
}

}  // namespace

Grid float8_grid(DType dtype) {
  const int highest = dtype == DType::f8_e4m3 ? 0x7e : 0x7b;  // what follows is NaN, or infinity
  std::array<std::uint8_t, 128> bits;
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint8_t>(i);
  std::array<float, 128> values;
  load_f32(bits.data(), dtype, bits.size(), values.data());
  return symmetric_grid(values.data(), highest);
}

Grid e2m1_grid() { return symmetric_grid(kE2m1Magnitudes, 7); }

const std::array<float, 256> kE4m3Values = [] {
  std::array<float, 256> made;
  for (std::size_t i = 0; i < made.size(); ++i)
    made[i] = static_cast<float>(c10::Float8_e4m3fn(static_cast<std::uint8_t>(i), c10::Float8_e4m3fn::from_bits()));
  return made;
}();

}  // namespace qmill
