// Slow and obvious counterparts of the SDK's arithmetic.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace qmill::testing {

// Element (r, c) of the Kronecker power of H4, without the division by sqrt(group): the product of H4's elements at the base-4
// digits of r and c.
inline int hadamard_sign(std::int64_t r, std::int64_t c, std::int64_t group) {
  constexpr int h4[4][4] = {{1, 1, 1, -1}, {1, 1, -1, 1}, {1, -1, 1, 1}, {-1, 1, 1, 1}};
  int sign = 1;
  for (; group > 1; group /= 4, r /= 4, c /= 4) sign *= h4[r % 4][c % 4];
  return sign;
}

// Element (r, c) of a matrix times the regular Hadamard matrix of each group of columns; value(r, c) gives the matrix.
template <class Value>
double rotated_element(Value value, std::int64_t r, std::int64_t c, std::int64_t group) {
  double sum = 0;
  for (std::int64_t k = 0; k < group; ++k) sum += hadamard_sign(c % group, k, group) * value(r, c / group * group + k);
  return sum / std::sqrt(static_cast<double>(group));
}

// The documented butterflies in F32, one operation at a time: stages of strides 1, 4, 16, ... after the division by sqrt(group).
inline void rotate_by_butterflies(std::span<float> values, std::int64_t group) {
  const auto size = static_cast<std::size_t>(group);
  for (float& value : values) value *= 1.0f / std::sqrt(static_cast<float>(group));
  for (std::size_t first = 0; first < values.size(); first += size)
    for (std::size_t stride = 1; stride < size; stride *= 4)
      for (std::size_t i = first; i < first + size; ++i) {
        if (i / stride % 4 != 0) continue;
        float& a = values[i];
        float& b = values[i + stride];
        float& c = values[i + 2 * stride];
        float& d = values[i + 3 * stride];
        const float p = a + b, m = a - b, q = c + d, n = c - d;
        a = p + n;
        b = p - n;
        c = q + m;
        d = q - m;
      }
}

inline std::vector<float> random_values(std::size_t n, unsigned seed, float deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

}  // namespace qmill::testing
