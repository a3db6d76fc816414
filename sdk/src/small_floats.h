// Grids of 8-bit and 4-bit floats, and their codes as bits: codes count values from zero, on both sides.
#pragma once

#include <qmill/grid.h>
#include <qmill/tensor_info.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace qmill {

// All finite values of f8_e4m3 or f8_e5m2; code n is the value with the bits n, code -n its negative.
Grid float8_grid(DType dtype);

inline constexpr float kE2m1Magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
Grid e2m1_grid();

// Sign and magnitude, the sign in the highest of `kBits` bits. There is no negative zero. Without branches: loops over it are vectorized.
template <int kBits>
std::uint8_t sign_magnitude(std::int8_t code) {
  const auto negative = static_cast<std::int8_t>(code >> 7);  // all ones: yes
  const auto magnitude = static_cast<std::int8_t>((code ^ negative) - negative);
  return static_cast<std::uint8_t>(magnitude | (negative & (1 << (kBits - 1))));
}

// Of a value that is not negative: to the nearest E4M3, ties to even, at most 448. One addition rounds: with 2^20 steps added, the last bit of a
// float is one step. A step is that of the exponent of the value; below the smallest normal value, 2^-6, that of this one.
inline std::uint8_t e4m3_bits(float value) {
  constexpr int kShift = 23 - 3;
  constexpr std::int32_t kExponent = 0x7f800000;
  constexpr std::int32_t kSmallest = std::bit_cast<std::int32_t>(0x1p-6f);
  const float clamped = std::min(value, 448.0f);
  const std::int32_t exponent = std::max(std::bit_cast<std::int32_t>(clamped) & kExponent, kSmallest);
  const std::int32_t many_steps = exponent + (kShift << 23);
  const std::int32_t steps = std::bit_cast<std::int32_t>(clamped + std::bit_cast<float>(many_steps)) - many_steps;
  return static_cast<std::uint8_t>(steps + ((exponent - kSmallest) >> kShift));
}

extern const std::array<float, 256> kE4m3Values;  // by bits
inline float e4m3_value(std::uint8_t bits) { return kE4m3Values[bits]; }

// What is stored for a scale that is wished for: `unit` times the nearest E4M3. Where that is zero, which a scale is not, the smallest normal
// float: divided by any unit, its E4M3 is zero again.
inline float times_e4m3(float unit, float wished) {
  return std::max(unit * e4m3_value(e4m3_bits(wished / unit)), std::numeric_limits<float>::min());
}

}  // namespace qmill
