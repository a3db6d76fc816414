#include "feedback_kernel.h"

#include <algorithm>
#include <vector>

#include "simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "feedback_kernel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "table_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Columns are rounded in F64: of a value of a hundred steps, F32 keeps five digits of a step, and a tie that falls the other way changes
// the rest of its row.
using F64 = hn::CappedTag<double, kFeedbackRows>;
HWY_INLINE std::int64_t F64Lanes() { return static_cast<std::int64_t>(hn::Lanes(F64())); }

// What some rows of a column are to become: w + feedback, and the same in steps of the scale.
struct Target {
  hn::Vec<F64> weight;
  hn::Vec<F64> value;
  hn::Vec<F64> scale;
};

HWY_INLINE Target TargetOf(const FeedbackBlock& block, std::int64_t k, const float* feedback, std::int64_t i) {
  const F64 d;
  const hn::Rebind<float, F64> narrow;
  const auto w = hn::PromoteTo(d, hn::LoadU(narrow, block.weights + k * block.stride + i));
  return {w, hn::Add(w, hn::PromoteTo(d, hn::LoadU(narrow, feedback + i))),
          hn::PromoteTo(d, hn::LoadU(narrow, block.scales + k * block.scale_stride + i))};
}

HWY_INLINE void Keep(const FeedbackBlock& block, std::int64_t k, std::int64_t i, const Target& target, hn::Vec<F64> decoded, float* errors) {
  const F64 d;
  const hn::Rebind<float, F64> narrow;
  const auto miss = hn::Sub(target.value, decoded);
  const auto cost = hn::Mul(hn::Set(d, block.pivots[k]), hn::Mul(miss, miss));
  hn::StoreU(hn::Add(hn::LoadU(d, block.objectives + i), cost), d, block.objectives + i);
  hn::StoreU(hn::DemoteTo(narrow, hn::Sub(target.weight, decoded)), narrow, errors + i);
}

HWY_INLINE void RoundToIntegers(const FeedbackBlock& block, std::int64_t k, const float* feedback, float* errors) {
  const F64 d;
  const hn::Rebind<std::int32_t, F64> integers;
  const hn::Rebind<std::int8_t, F64> bytes;
  const auto lowest = hn::Set(d, block.grid->lowest), highest = hn::Set(d, block.grid->highest);
  for (std::int64_t i = 0; i < kFeedbackRows; i += F64Lanes()) {
    const Target target = TargetOf(block, k, feedback, i);
    const auto q = hn::Min(hn::Max(hn::Round(hn::Div(target.value, target.scale)), lowest), highest);
    hn::StoreU(hn::DemoteTo(bytes, hn::DemoteTo(integers, q)), bytes, block.codes + k * block.stride + i);
    Keep(block, k, i, target, hn::Mul(q, target.scale), errors);
  }
}

// Values of a table are F32, and so are the places where its codes change.
HWY_INLINE void RoundToTable(const FeedbackBlock& block, std::int64_t k, const float* feedback, float* errors) {
  const F64 d;
  const hn::Rebind<float, F64> narrow;
  const hn::CappedTag<float, kFeedbackRows> d32;
  const hn::Rebind<std::int8_t, decltype(d32)> bytes;
  const auto lowest = hn::Set(hn::RebindToSigned<decltype(d32)>(), block.grid->lowest);
  float values[kFeedbackRows];
  for (std::int64_t i = 0; i < kFeedbackRows; i += F64Lanes()) {
    const Target target = TargetOf(block, k, feedback, i);
    hn::StoreU(hn::DemoteTo(narrow, hn::Div(target.value, target.scale)), narrow, values + i);
  }
  for (std::int64_t i = 0; i < kFeedbackRows; i += static_cast<std::int64_t>(hn::Lanes(d32))) {
    const auto place = PlaceInTable(d32, hn::LoadU(d32, values + i), *block.table);
    hn::StoreU(hn::DemoteTo(bytes, hn::Add(place, lowest)), bytes, block.codes + k * block.stride + i);
    hn::StoreU(hn::GatherIndex(d32, block.table->values.data(), place), d32, values + i);
  }
  for (std::int64_t i = 0; i < kFeedbackRows; i += F64Lanes()) {
    const Target target = TargetOf(block, k, feedback, i);
    Keep(block, k, i, target, hn::Mul(hn::PromoteTo(d, hn::LoadU(narrow, values + i)), target.scale), errors);
  }
}

// Values of codes that every row has of its own: a search from the lowest. Of values equally near, the lower one.
HWY_INLINE void RoundToLevels(const FeedbackBlock& block, std::int64_t k, const float* feedback, float* errors) {
  const F64 d;
  const hn::Rebind<float, F64> narrow;
  const hn::CappedTag<float, kFeedbackRows> d32;
  const hn::RebindToSigned<decltype(d32)> di;
  const hn::Rebind<std::int8_t, decltype(d32)> bytes;
  const int codes = block.grid->highest - block.grid->lowest + 1;
  float values[kFeedbackRows];
  for (std::int64_t i = 0; i < kFeedbackRows; i += F64Lanes())
    hn::StoreU(hn::DemoteTo(narrow, TargetOf(block, k, feedback, i).value), narrow, values + i);
  for (std::int64_t i = 0; i < kFeedbackRows; i += static_cast<std::int64_t>(hn::Lanes(d32))) {
    const float* level = block.levels[k] + i;
    const auto x = hn::LoadU(d32, values + i);
    const auto twice = hn::Add(x, x);
    auto low = hn::LoadU(d32, level);
    auto chosen = low;
    auto code = hn::Set(di, block.grid->lowest);
    for (int next = 1; next < codes; ++next) {
      const auto high = hn::LoadU(d32, level + next * kFeedbackRows);
      const auto passes = hn::Gt(twice, hn::Add(low, high));
      chosen = hn::IfThenElse(passes, high, chosen);
      code = hn::Sub(code, hn::BitCast(di, hn::VecFromMask(d32, passes)));
      low = high;
    }
    hn::StoreU(hn::DemoteTo(bytes, code), bytes, block.codes + k * block.stride + i);
    hn::StoreU(chosen, d32, values + i);
  }
  for (std::int64_t i = 0; i < kFeedbackRows; i += F64Lanes())
    Keep(block, k, i, TargetOf(block, k, feedback, i), hn::PromoteTo(d, hn::LoadU(narrow, values + i)), errors);
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
    if (block.levels != nullptr)
      RoundToLevels(block, k, feedback, errors.data() + k * kFeedbackRows);
    else if (block.table == nullptr)
      RoundToIntegers(block, k, feedback, errors.data() + k * kFeedbackRows);
    else
      RoundToTable(block, k, feedback, errors.data() + k * kFeedbackRows);
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
