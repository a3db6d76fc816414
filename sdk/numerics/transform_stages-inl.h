// What fast Hadamard transforms have in common, compiled once per instruction set: passes over rows of values, for any butterflies.
#if defined(QMILL_TRANSFORM_STAGES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef QMILL_TRANSFORM_STAGES_INL_H
#undef QMILL_TRANSFORM_STAGES_INL_H
#else
#define QMILL_TRANSFORM_STAGES_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Up16 = hn::CappedTag<float, 16>;  // whole vectors in a run of 16 values

// One pass over memory: mix(v) gets the vectors at the same place of kRuns runs of `stride` values.
template <int kRuns, class Mix>
HWY_INLINE void StridedPass(float* x, std::int64_t n, std::int64_t stride, Mix mix) {
  const Up16 d;
  for (std::int64_t base = 0; base < n; base += kRuns * stride)
    for (std::int64_t i = base; i < base + stride; i += static_cast<std::int64_t>(hn::Lanes(d))) {
      hn::Vec<Up16> v[kRuns];
      for (int k = 0; k < kRuns; ++k) v[k] = hn::LoadU(d, x + i + k * stride);
      mix(v);
      for (int k = 0; k < kRuns; ++k) hn::StoreU(v[k], d, x + i + k * stride);
    }
}

#if HWY_TARGET != HWY_SCALAR
// 16 values times `factor`, then Stages::Inside of each run of four and Stages::Between the four runs.
template <class Stages>
HWY_INLINE void FirstStages16(float* x, float factor) {
  const hn::FixedTag<float, 4> d;
  const auto scaled = hn::Set(d, factor);
  const auto load = [&](int k) HWY_ATTR { return Stages::Inside(d, hn::Mul(hn::LoadU(d, x + 4 * k), scaled)); };
  auto a = load(0);
  auto b = load(1);
  auto c = load(2);
  auto e = load(3);
  Stages::Between(a, b, c, e);
  hn::StoreU(a, d, x);
  hn::StoreU(b, d, x + 4);
  hn::StoreU(c, d, x + 8);
  hn::StoreU(e, d, x + 12);
}

#if HWY_MAX_BYTES >= 32
// 32 values: two runs of 16 side by side.
template <class Stages>
HWY_INLINE void FirstStages32(float* x, float factor) {
  const hn::FixedTag<float, 8> d;
  const hn::Half<decltype(d)> half;
  const auto scaled = hn::Set(d, factor);
  const auto load = [&](int k) HWY_ATTR {
    return Stages::Inside(d, hn::Mul(hn::Combine(d, hn::LoadU(half, x + 16 + 4 * k), hn::LoadU(half, x + 4 * k)), scaled));
  };
  const auto store = [&](int k, auto v) HWY_ATTR {
    hn::StoreU(hn::LowerHalf(half, v), half, x + 4 * k);
    hn::StoreU(hn::UpperHalf(half, v), half, x + 16 + 4 * k);
  };
  auto a = load(0);
  auto b = load(1);
  auto c = load(2);
  auto e = load(3);
  Stages::Between(a, b, c, e);
  store(0, a);
  store(1, b);
  store(2, c);
  store(3, e);
}
#endif

// The same for n values, a multiple of 16.
template <class Stages>
HWY_INLINE void FirstStagesOf(float* x, std::int64_t n, float factor) {
  std::int64_t i = 0;
#if HWY_MAX_BYTES >= 32
  for (; i + 32 <= n; i += 32) FirstStages32<Stages>(x + i, factor);
#endif
  for (; i < n; i += 16) FirstStages16<Stages>(x + i, factor);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
