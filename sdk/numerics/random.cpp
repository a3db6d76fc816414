#include <qmill/names.h>
#include <qmill/numerics/random.h>

#include "portable_math.h"

namespace qmill {
namespace {

// seed_for steps SplitMix64 by its seed: successive seeds give successive words.
class Words {
 public:
  Words(std::uint64_t seed, std::string_view purpose) : start_(seed_for(seed, purpose)) {}
  std::uint64_t operator[](std::int64_t i) const { return seed_for(start_ + static_cast<std::uint64_t>(i), {}); }

 private:
  std::uint64_t start_;
};

struct Pair {
  double first, second;
};

Pair normal_pair(const Words& words, std::int64_t pair) {
  const double u = static_cast<double>((words[2 * pair] >> 11) + 1) * 0x1p-53;  // (0, 1]
  const double turns = static_cast<double>(words[2 * pair + 1] >> 11) * 0x1p-53;
  const double radius = std::sqrt(-2 * natural_logarithm(u));
  const SineCosine direction = sine_cosine(turns);
  return {radius * direction.cosine, radius * direction.sine};
}

}  // namespace

std::vector<float> random_signs(std::uint64_t seed, std::int64_t n) {
  const Words words(seed, "random_signs");
  std::vector<float> signs(static_cast<std::size_t>(n));
  for (std::int64_t first = 0; first < n; first += 64) {
    std::uint64_t bits = words[first / 64];
    for (std::int64_t i = first; i < n && i < first + 64; ++i, bits >>= 1)
      signs[static_cast<std::size_t>(i)] = (bits & 1) != 0 ? -1.0f : 1.0f;
  }
  return signs;
}

void normal_values(std::uint64_t seed, std::int64_t n, float* out, std::int64_t first) {
  const Words words(seed, "normal_values");
  const std::int64_t end = first + n;
  for (std::int64_t i = first; i < end;) {
    const Pair pair = normal_pair(words, i / 2);
    if (i % 2 == 0) *out++ = static_cast<float>(pair.first), ++i;
    if (i < end) *out++ = static_cast<float>(pair.second), ++i;
  }
}

}  // namespace qmill
