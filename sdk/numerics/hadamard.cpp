#include <qmill/numerics/hadamard.h>

#include "portable_math.h"

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/random.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
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

// out[a, c] = sum over i, in order, of mixer[i, a] * in[i, c], for runs of `width` values, a multiple of 16.
HWY_INLINE void MixWideRuns(const float* mixer, std::int64_t order, std::int64_t padded, std::int64_t width, const float* in, float* out) {
  constexpr int kRows = 8;
  const Up16 d;
  using V = hn::Vec<Up16>;
  for (std::int64_t a = 0; a < order; a += kRows)
    for (std::int64_t c = 0; c < width; c += static_cast<std::int64_t>(hn::Lanes(d))) {
      V sums[kRows];
      for (int r = 0; r < kRows; ++r) sums[r] = hn::Zero(d);
      for (std::int64_t i = 0; i < order; ++i) {
        const V x = hn::LoadU(d, in + i * width + c);
        const float* factors = mixer + i * padded + a;
        for (int r = 0; r < kRows; ++r) sums[r] = hn::Add(sums[r], hn::Mul(hn::Set(d, factors[r]), x));
      }
      const int rows = static_cast<int>(std::min<std::int64_t>(kRows, order - a));
      for (int r = 0; r < rows; ++r) hn::StoreU(sums[r], d, out + (a + r) * width + c);
    }
}

// The same for narrower runs: vectors along a.
HWY_INLINE void MixNarrowRuns(const float* mixer, std::int64_t order, std::int64_t padded, std::int64_t width, const float* in,
                              float* out) {
  const hn::CappedTag<float, 8> d;
  using V = hn::Vec<hn::CappedTag<float, 8>>;
  constexpr std::int64_t kRows = 32;
  constexpr int kVectors = kRows / static_cast<int>(hn::MaxLanes(d));
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t c = 0; c < width; ++c)
    for (std::int64_t a = 0; a < order; a += kRows) {
      V sums[kVectors];
      for (int v = 0; v < kVectors; ++v) sums[v] = hn::Zero(d);
      for (std::int64_t i = 0; i < order; ++i) {
        const V x = hn::Set(d, in[i * width + c]);
        const float* factors = mixer + i * padded + a;
        for (int v = 0; v < kVectors; ++v) sums[v] = hn::Add(sums[v], hn::Mul(hn::LoadU(d, factors + v * lanes), x));
      }
      float rows[kRows];
      for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, rows + v * lanes);
      for (std::int64_t r = 0; r < std::min(kRows, order - a); ++r) out[(a + r) * width + c] = rows[r];
    }
}

void MixRuns(const float* mixer, std::int64_t order, std::int64_t padded, std::int64_t width, const float* in, float* out) {
  if (width >= 16) return MixWideRuns(mixer, order, padded, width, in, out);
  MixNarrowRuns(mixer, order, padded, width, in, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {

HWY_EXPORT(Sylvester);
HWY_EXPORT(MixRuns);

constexpr std::int64_t kLargestHadamard = 256;  // time grows with the order
constexpr std::int64_t kMixerPadding = 32;      // so that the kernels read whole vectors

bool is_prime(std::int64_t n) {
  for (std::int64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return n > 1;
}

std::int64_t odd_part(std::int64_t n) { return n >> std::countr_zero(static_cast<std::uint64_t>(n)); }

bool first_paley(std::int64_t order) { return order % 4 == 0 && is_prime(order - 1); }
bool second_paley(std::int64_t order) { return order % 4 == 0 && (order / 2 - 1) % 4 == 1 && is_prime(order / 2 - 1); }

// The order of M: 1, that of a Hadamard matrix, or the odd part.
std::int64_t mixer_order(std::int64_t columns) {
  const std::int64_t odd = odd_part(columns);
  if (odd == 1) return 1;
  for (std::int64_t order = 4 * odd; order <= kLargestHadamard && columns % order == 0; order *= 2)
    if (first_paley(order) || second_paley(order)) return order;
  return odd;
}

struct SquareMatrix {
  std::int64_t order;
  std::vector<float> values;

  explicit SquareMatrix(std::int64_t n) : order(n), values(static_cast<std::size_t>(n * n)) {}
  float& at(std::int64_t row, std::int64_t column) { return values[static_cast<std::size_t>(row * order + column)]; }
};

// [0 1; sign Q]: the conference matrix of order q + 1.
SquareMatrix conference_matrix(std::int64_t q, float sign) {
  std::vector<float> character(static_cast<std::size_t>(q), -1.0f);
  character[0] = 0;
  for (std::int64_t x = 1; x < q; ++x) character[static_cast<std::size_t>(x * x % q)] = 1;
  SquareMatrix c(q + 1);
  for (std::int64_t i = 0; i < q; ++i) {
    c.at(0, i + 1) = 1;
    c.at(i + 1, 0) = sign;
    for (std::int64_t j = 0; j < q; ++j) c.at(i + 1, j + 1) = character[static_cast<std::size_t>((i - j + q) % q)];
  }
  return c;
}

SquareMatrix first_paley_matrix(std::int64_t order) {
  SquareMatrix h = conference_matrix(order - 1, -1);
  for (std::int64_t i = 0; i < order; ++i) h.at(i, i) = 1;
  return h;
}

SquareMatrix second_paley_matrix(std::int64_t order) {
  SquareMatrix c = conference_matrix(order / 2 - 1, 1);
  SquareMatrix h(order);
  for (std::int64_t i = 0; i < order / 2; ++i)
    for (std::int64_t j = 0; j < order / 2; ++j) {
      const float x = c.at(i, j);
      const float same = i == j ? 1.0f : 0.0f;
      h.at(2 * i, 2 * j) = x + same;
      h.at(2 * i, 2 * j + 1) = x - same;
      h.at(2 * i + 1, 2 * j) = x - same;
      h.at(2 * i + 1, 2 * j + 1) = -x - same;
    }
  return h;
}

SquareMatrix hartley_matrix(std::int64_t order) {
  SquareMatrix h(order);
  for (std::int64_t j = 0; j < order; ++j)
    for (std::int64_t k = 0; k < order; ++k) {
      const SineCosine angle = sine_cosine(static_cast<double>(j * k % order) / static_cast<double>(order));
      h.at(j, k) = static_cast<float>(angle.cosine + angle.sine);
    }
  return h;
}

std::int64_t padded_order(std::int64_t order) { return (order + kMixerPadding - 1) / kMixerPadding * kMixerPadding; }

// Row i: the factors of input i, for each output.
std::vector<float> mixer_of(SquareMatrix& m, bool transposed) {
  const std::int64_t padded = padded_order(m.order);
  std::vector<float> mixer(static_cast<std::size_t>(m.order * padded));
  for (std::int64_t i = 0; i < m.order; ++i)
    for (std::int64_t a = 0; a < m.order; ++a) mixer[static_cast<std::size_t>(i * padded + a)] = transposed ? m.at(i, a) : m.at(a, i);
  return mixer;
}

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

bool HadamardPlan::exists(std::int64_t columns) { return columns > 0 && mixer_order(columns) <= kLargestOrder; }

HadamardPlan HadamardPlan::for_columns(std::int64_t columns) {
  if (!exists(columns))
    throw Error(ErrorKind::unsupported,
                fmt::format("{} columns cannot be rotated: the largest odd factor may be {}", columns, kLargestOrder));
  HadamardPlan plan;
  plan.order_ = mixer_order(columns);
  plan.run_ = columns / plan.order_;
  if (plan.order_ == 1) return plan;
  plan.flat_ = plan.order_ % 2 == 0;
  SquareMatrix m = !plan.flat_                ? hartley_matrix(plan.order_)
                   : first_paley(plan.order_) ? first_paley_matrix(plan.order_)
                                              : second_paley_matrix(plan.order_);
  plan.mixer_ = mixer_of(m, false);
  plan.transposed_mixer_ = mixer_of(m, true);
  return plan;
}

void HadamardPlan::transform(float* row, const std::vector<float>& mixer) const {
  const float factor = inverse_root(columns());
  for (std::int64_t i = 0; i < order_; ++i) HWY_DYNAMIC_DISPATCH(Sylvester)(row + i * run_, run_, factor);
  if (order_ == 1) return;
  thread_local std::vector<float> scratch;
  scratch.assign(row, row + columns());
  HWY_DYNAMIC_DISPATCH(MixRuns)(mixer.data(), order_, padded_order(order_), run_, scratch.data(), row);
}

void HadamardPlan::apply(float* row) const { transform(row, mixer_); }

void HadamardPlan::apply_transposed(float* row) const { transform(row, transposed_mixer_); }

RandomHadamard::RandomHadamard(std::uint64_t seed, std::int64_t columns)
    : plan_(HadamardPlan::for_columns(columns)), signs_(random_signs(seed, columns)) {}

void RandomHadamard::apply(float* row) const {
  for (std::size_t i = 0; i < signs_.size(); ++i) row[i] *= signs_[i];
  plan_.apply(row);
}

void RandomHadamard::apply_transposed(float* row) const {
  plan_.apply_transposed(row);
  for (std::size_t i = 0; i < signs_.size(); ++i) row[i] *= signs_[i];
}

at::Tensor random_orthogonal(std::uint64_t seed, std::int64_t n) {
  const OneThread guard;
  const at::Tensor normals = at::empty({n, n}, at::kFloat);
  normal_values(seed, n * n, normals.mutable_data_ptr<float>());
  const auto [q, r] = at::linalg_qr(normals);
  at::Tensor result = q.contiguous();
  auto* values = result.mutable_data_ptr<float>();
  const at::Tensor diagonal = r.diagonal().contiguous();
  const auto* signs = diagonal.const_data_ptr<float>();
  for (std::int64_t row = 0; row < n; ++row)
    for (std::int64_t column = 0; column < n; ++column)
      if (std::signbit(signs[column])) values[row * n + column] = -values[row * n + column];
  return result;
}

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
