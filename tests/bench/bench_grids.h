// Tables of values, as 4-bit and 8-bit floats have them.
#pragma once

#include <qmill/grid.h>

#include <cmath>

namespace qmill::bench {

// E2M1: 15 values.
inline Grid e2m1() {
  Grid grid;
  grid.lowest = -7;
  grid.highest = 7;
  grid.values = {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return grid;
}

// E4M3: 253 values.
inline Grid e4m3() {
  Grid grid;
  grid.lowest = -126;
  grid.highest = 126;
  for (int code = -126; code <= 126; ++code) {
    const int magnitude = std::abs(code), exponent = magnitude >> 3, mantissa = magnitude & 7;
    const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9) : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    grid.values.push_back(code < 0 ? -value : value);
  }
  return grid;
}

inline Grid int4() {
  Grid grid;
  grid.lowest = -7;
  grid.highest = 7;
  return grid;
}

}  // namespace qmill::bench
