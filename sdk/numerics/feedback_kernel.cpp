#include "feedback_kernel.h"

#include <algorithm>
#include <vector>

#include "simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "feedback_kernel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rounds one column in F64: of a value of a hundred steps, F32 keeps five digits of a step, and a tie that falls the other way
// changes the rest of its row.
HWY_INLINE void RoundColumn(const FeedbackBlock& block, std::int64_t k, const float* feedback, float* errors) {
  using F64 = hn::CappedTag<double, kFeedbackRows>;
  const F64 d;
  const hn::Rebind<float, F64> narrow;
  const hn::Rebind<std::int32_t, F64> integers;
  const hn::Rebind<std::int8_t, F64> bytes;
  const float* weights = block.weights + k * block.stride;
  const float* scales = block.scales + k * block.scale_stride;
  std::int8_t* codes = block.codes + k * block.stride;
  const Grid& grid = *block.grid;
  for (std::int64_t i = 0; i < kFeedbackRows; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    const auto w = hn::PromoteTo(d, hn::LoadU(narrow, weights + i));
    const auto v = hn::Add(w, hn::PromoteTo(d, hn::LoadU(narrow, feedback + i)));
    const auto s = hn::PromoteTo(d, hn::LoadU(narrow, scales + i));
    auto q = hn::Div(v, s);
    if (grid.values.empty()) {
      q = hn::Min(hn::Max(hn::Round(q), hn::Set(d, grid.lowest)), hn::Set(d, grid.highest));
      hn::StoreU(hn::DemoteTo(bytes, hn::DemoteTo(integers, q)), bytes, codes + i);
    } else {
      double lanes[kFeedbackRows];
      hn::StoreU(q, d, lanes);
      for (std::size_t lane = 0; lane < hn::Lanes(d); ++lane) {
        const int code = grid.nearest(static_cast<float>(lanes[lane]));
        codes[static_cast<std::size_t>(i) + lane] = static_cast<std::int8_t>(code);
        lanes[lane] = static_cast<double>(grid.value(code));
      }
      q = hn::LoadU(d, lanes);
    }
    const auto decoded = hn::Mul(q, s);
    const auto miss = hn::Sub(v, decoded);
    const auto cost = hn::Mul(hn::Set(d, block.pivots[k]), hn::Mul(miss, miss));
    hn::StoreU(hn::Add(hn::LoadU(d, block.objectives + i), cost), d, block.objectives + i);
    hn::StoreU(hn::DemoteTo(narrow, hn::Sub(w, decoded)), narrow, errors + i);
  }
}

// feedback + sum_{j<k} errors_j U_jk. Four sums at once, in a fixed order: one would wait for itself.
HWY_INLINE void AddFeedback(const float* errors, const float* coefficients, std::int64_t k, const float* feedback, float* out) {
  const hn::CappedTag<float, kFeedbackRows> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < kFeedbackRows; i += lanes) {
    auto a = hn::LoadU(d, feedback + i);
    auto b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
    const float* column = errors + i;
    std::int64_t j = 0;
    for (; j + 4 <= k; j += 4, column += 4 * kFeedbackRows) {
      a = hn::MulAdd(hn::Set(d, coefficients[j]), hn::LoadU(d, column), a);
      b = hn::MulAdd(hn::Set(d, coefficients[j + 1]), hn::LoadU(d, column + kFeedbackRows), b);
      c = hn::MulAdd(hn::Set(d, coefficients[j + 2]), hn::LoadU(d, column + 2 * kFeedbackRows), c);
      e = hn::MulAdd(hn::Set(d, coefficients[j + 3]), hn::LoadU(d, column + 3 * kFeedbackRows), e);
    }
    for (; j < k; ++j, column += kFeedbackRows) b = hn::MulAdd(hn::Set(d, coefficients[j]), hn::LoadU(d, column), b);
    hn::StoreU(hn::Add(hn::Add(a, b), hn::Add(c, e)), d, out + i);
  }
}

void RoundBlock(const FeedbackBlock& block) {
  // The errors of these rows, without gaps: they stay in the first-level cache.
  thread_local std::vector<float> errors;
  errors.resize(static_cast<std::size_t>(block.columns * kFeedbackRows));
  float feedback[kFeedbackRows];
  for (std::int64_t k = 0; k < block.columns; ++k) {
    AddFeedback(errors.data(), block.coefficients + k * block.coefficient_stride, k, block.feedback + k * block.stride, feedback);
    RoundColumn(block, k, feedback, errors.data() + k * kFeedbackRows);
  }
  for (std::int64_t k = 0; k < block.columns; ++k)
    std::copy_n(errors.data() + k * kFeedbackRows, kFeedbackRows, block.weights + k * block.stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {
HWY_EXPORT(RoundBlock);
}  // namespace

void round_block(const FeedbackBlock& block) { HWY_DYNAMIC_DISPATCH(RoundBlock)(block); }

}  // namespace qmill
#endif
