// Casts between floating types that say what they lost.
#pragma once

#include <qmill/tensor.h>

namespace qmill {

// Largest finite F16 value.
inline constexpr float kLargestF16 = 65504.0f;

struct CastResult {
  std::int64_t not_finite = 0;  // NaN or infinity in the source
  std::int64_t overflowed = 0;  // finite in the source, beyond the range of the target
};

// Casts `source` into `target` (F16, BF16 or F32; same number of values, contiguous, rounded half to even). With `clamp`,
// values beyond the target's range become its largest finite value instead of infinity; they are counted either way. [any-thread]
QMILL_API CastResult cast_values(const at::Tensor& source, at::Tensor& target, bool clamp);

}  // namespace qmill
