#include <qmill/numerics/hadamard.h>

#include <qmill/error.h>

#include <algorithm>
#include <cmath>

#include "simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hadamard.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "transform_stages-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class V>
HWY_INLINE void SumDifference(V& a, V& b) {
  const V sum = hn::Add(a, b);
  b = hn::Sub(a, b);
  a = sum;
}

// log2(kRuns) stages in one pass over memory, the first of them between runs of `stride` values.
template <int kRuns>
HWY_INLINE void StridedStages(float* x, std::int64_t n, std::int64_t stride) {
  StridedPass<kRuns>(x, n, stride, [](hn::Vec<Up16>* v) HWY_ATTR {
    for (int half = 1; half < kRuns; half *= 2)
      for (int k = 0; k < kRuns; ++k)
        if ((k & half) == 0) SumDifference(v[k], v[k + half]);
  });
}

HWY_INLINE void ScalarStages(float* x, std::int64_t n, float factor) {
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
  for (std::int64_t stride = 1; stride < std::min<std::int64_t>(n, 16); stride *= 2)
    for (std::int64_t i = 0; i < n; ++i)
      if ((i & stride) == 0) {
        const float sum = x[i] + x[i + stride];
        x[i + stride] = x[i] - x[i + stride];
        x[i] = sum;
      }
}

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void FirstStages(float* x, std::int64_t n, float factor) { ScalarStages(x, n, factor); }
#else
struct SylvesterStages {
  // The stages of strides 1 and 2: inside each run of four values.
  template <class D>
  static HWY_INLINE hn::Vec<D> Inside(D d, hn::Vec<D> x) {
    alignas(16) static constexpr float kOddNegative[4] = {0.0f, -0.0f, 0.0f, -0.0f};
    alignas(16) static constexpr float kUpperNegative[4] = {0.0f, 0.0f, -0.0f, -0.0f};
    const auto pairs = hn::Add(hn::DupEven(x), hn::Xor(hn::DupOdd(x), hn::LoadDup128(d, kOddNegative)));  // a+b, a-b, c+d, c-d
    return hn::Add(hn::Shuffle1032(pairs), hn::Xor(pairs, hn::LoadDup128(d, kUpperNegative)));
  }

  // Strides 4 and 8.
  template <class V>
  static HWY_INLINE void Between(V& a, V& b, V& c, V& e) {
    SumDifference(a, b);
    SumDifference(c, e);
    SumDifference(a, c);
    SumDifference(b, e);
  }
};

// The stages of strides 1 to 8, after multiplication by `factor`.
HWY_INLINE void FirstStages(float* x, std::int64_t n, float factor) { FirstStagesOf<SylvesterStages>(x, n, factor); }
#endif

void Sylvester(float* x, std::int64_t n, float factor) {
  if (n < 16) return ScalarStages(x, n, factor);
  FirstStages(x, n, factor);
  std::int64_t stride = 16;
  for (; stride * 16 <= n; stride *= 16) StridedStages<16>(x, n, stride);
  switch (n / stride) {
    case 2:
      return StridedStages<2>(x, n, stride);
    case 4:
      return StridedStages<4>(x, n, stride);
    case 8:
      return StridedStages<8>(x, n, stride);
    default:
      return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {

HWY_EXPORT(Sylvester);

float inverse_root(std::int64_t n) { return static_cast<float>(1 / std::sqrt(static_cast<double>(n))); }

void require_matrix(const at::Tensor& matrix) {
  if (matrix.dim() != 2 || matrix.scalar_type() != at::kFloat || !matrix.is_contiguous())
    throw Error(ErrorKind::internal, "a transform was given something else than a contiguous F32 matrix");
}

std::int64_t pieces(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

// Transforms columns [first, end) of a matrix [K,K].
void transform_columns(float* h, std::int64_t k, std::int64_t first, std::int64_t end, const std::function<void(float*)>& transform) {
  thread_local std::vector<float> scratch;
  scratch.resize(static_cast<std::size_t>((end - first) * k));
  float* columns = scratch.data();
  for (std::int64_t r = 0; r < k; ++r)
    for (std::int64_t c = first; c < end; ++c) columns[(c - first) * k + r] = h[r * k + c];
  for (std::int64_t c = 0; c < end - first; ++c) transform(columns + c * k);
  for (std::int64_t r = 0; r < k; ++r)
    for (std::int64_t c = first; c < end; ++c) h[r * k + c] = columns[(c - first) * k + r];
}

// Elements (r, c) and (c, r) become their mean, for r in [first, end) and c < r.
void average_triangles(float* h, std::int64_t k, std::int64_t first, std::int64_t end) {
  constexpr std::int64_t kTile = 32;
  for (std::int64_t tile = 0; tile < end; tile += kTile)
    for (std::int64_t r = std::max(first, tile + 1); r < end; ++r)
      for (std::int64_t c = tile; c < std::min(tile + kTile, r); ++c) {
        const float mean = 0.5f * (h[r * k + c] + h[c * k + r]);
        h[r * k + c] = mean;
        h[c * k + r] = mean;
      }
}

}  // namespace

void sylvester_transform(float* values, std::int64_t n) { HWY_DYNAMIC_DISPATCH(Sylvester)(values, n, inverse_root(n)); }

void transform_rows(at::Tensor& rows, const std::function<void(float*)>& transform, LayerContext& context) {
  require_matrix(rows);
  const std::int64_t n = rows.size(0), k = rows.size(1);
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, (1 << 17) / std::max<std::int64_t>(1, k));
  auto* values = rows.mutable_data_ptr<float>();
  context.parallel(pieces(n, rows_per_task), [&](std::int64_t task) {
    context.check_cancelled();
    for (std::int64_t row = task * rows_per_task; row < std::min(n, (task + 1) * rows_per_task); ++row) transform(values + row * k);
  });
}

void transform_symmetric(at::Tensor& h, const std::function<void(float*)>& transform, LayerContext& context) {
  require_matrix(h);
  const std::int64_t k = h.size(0);
  if (h.size(1) != k) throw Error(ErrorKind::internal, "a two-sided transform was given a matrix that is not square");
  transform_rows(h, transform, context);
  auto* values = h.mutable_data_ptr<float>();
  constexpr std::int64_t kStrip = 32;  // columns: whole cache lines of each row
  const auto for_strips = [&](const auto& body) {
    context.parallel(pieces(k, kStrip), [&](std::int64_t strip) {
      context.check_cancelled();
      body(strip * kStrip, std::min(k, (strip + 1) * kStrip));
    });
  };
  for_strips([&](std::int64_t first, std::int64_t end) { transform_columns(values, k, first, end, transform); });
  for_strips([&](std::int64_t first, std::int64_t end) { average_triangles(values, k, first, end); });
}

}  // namespace qmill
#endif  // HWY_ONCE
