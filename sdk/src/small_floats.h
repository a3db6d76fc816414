// Grids of 8-bit and 4-bit floats, and their codes as bits: codes count values from zero, on both sides.
#pragma once

#include <qmill/grid.h>
#include <qmill/tensor_info.h>

namespace qmill {

// All finite values of f8_e4m3 or f8_e5m2; code n is the value with the bits n, code -n its negative.
Grid float8_grid(DType dtype);

// Those of E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
Grid e2m1_grid();

// Sign and magnitude, the sign in bit `bits` - 1. There is no negative zero.
inline std::uint8_t sign_magnitude(int code, int bits) {
  return static_cast<std::uint8_t>(code < 0 ? (1 << (bits - 1)) | -code : code);
}

// To the nearest E4M3, at most 448.
std::uint8_t e4m3_bits(float value);
float e4m3_value(std::uint8_t bits);

}  // namespace qmill
