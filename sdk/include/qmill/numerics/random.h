// Random values that are functions of (seed, place) alone: in any order, in any number of threads, on every platform the same bits.
// Word i is that of SplitMix64 (Steele, Lea, Flood 2014) at a start of the sequence which seed_for(seed, purpose) gives. Everything
// here is [any-thread].
#pragma once

#include <qmill/export.h>

#include <cstdint>
#include <vector>

namespace qmill {

// n values, each +1 or -1 with equal probability. A longer call begins like a shorter one.
QMILL_API std::vector<float> random_signs(std::uint64_t seed, std::int64_t n);

// Values first, ..., first + n - 1 of the seed's sequence of independent standard normals (Box and Muller 1958), computed in F64 from
// additions, products, quotients and square roots only, because the logarithms and sines of different systems differ in last bits.
QMILL_API void normal_values(std::uint64_t seed, std::int64_t n, float* out, std::int64_t first = 0);

}  // namespace qmill
