// Loops over one row of values, vectorized for the processor at hand. The results do not depend on which one it is:
// only error sums (reports) may differ in their last bits. Everything here is [any-thread] and reads and writes only the
// memory that it is given; pointers need no alignment.
#pragma once

#include <qmill/tensor_info.h>

namespace qmill {

// n values of a floating type as F32. Exact but for F64, which is rounded.
QMILL_API void load_f32(const void* source, DType dtype, std::int64_t n, float* out);

// Multiplies each run of `group` values by the regular Hadamard matrix of that order (a power of 4 that divides n),
// divided by sqrt(group): the Kronecker power of (+ + + -)(+ + - +)(+ - + +)(- + + +)/2. It is symmetric and its own inverse, so
// the same call rotates and rotates back. (ConvRot, arXiv 2512.03673.)
QMILL_API void rotate_groups(float* values, std::int64_t n, std::int64_t group);

// The largest |x|. Not finite when any value is not.
QMILL_API float largest_magnitude(const float* values, std::int64_t n);

// codes[i] = clamp(round_half_even(values[i] / scale), lowest, highest).
QMILL_API void round_codes(const float* values, std::int64_t n, float scale, int lowest, int highest, std::int8_t* codes);

// out[i] = codes[i] * scale.
QMILL_API void scale_codes(const std::int8_t* codes, std::int64_t n, float scale, float* out);

// Sums for quality figures. Add up in any order; merge() joins sums of different rows.
struct QMILL_API ErrorSums {
  double squared_error = 0;
  double squared_signal = 0;
  double largest_error = 0;  // NaN once a difference was NaN
  std::int64_t count = 0;

  void merge(const ErrorSums& other);
};

QMILL_API void add_errors(const float* original, const float* decoded, std::int64_t n, ErrorSums& sums);

// The instruction set in use, for --version ("AVX2").
QMILL_API std::string_view simd_name();

}  // namespace qmill
