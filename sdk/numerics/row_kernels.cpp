#include <qmill/numerics/row_kernels.h>

#include "tile_kernels.h"

#include <qmill/error.h>

#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e5m2.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "transform_stages-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;

// Calls whole(i) for each full vector of values, then rest(i, left) once for what is left.
template <class Whole, class Rest>
HWY_INLINE void for_vectors(std::int64_t n, std::int64_t lanes, Whole whole, Rest rest) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) whole(i);
  if (i < n) rest(i, n - i);
}

void LoadBf16(const void* source, std::int64_t n, float* out) {
  const F32 d;
  const hn::Rebind<hwy::bfloat16_t, F32> half;
  const auto* in = static_cast<const hwy::bfloat16_t*>(source);
  for_vectors(
      n, hn::Lanes(d), [&](std::int64_t i) HWY_ATTR { hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, in + i)), d, out + i); },
      [&](std::int64_t i, std::int64_t left) {
        for (std::int64_t j = i; j < i + left; ++j) {
          std::uint16_t bits;
          std::memcpy(&bits, in + j, sizeof bits);
          out[j] = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
        }
      });
}

// Where the processor has no such instruction, PromoteTo reads infinity and NaN as numbers from 65536 on, which F16 has none of.
template <class D, class V>
HWY_INLINE hn::Vec<D> PromoteF16(D d, V halves) {
  const auto x = hn::PromoteTo(d, halves);
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Ge(hn::Abs(x), hn::Set(d, 65536.0f)), hn::Or(x, infinity), x);
}

void LoadF16(const void* source, std::int64_t n, float* out) {
  const F32 d;
  const hn::Rebind<hwy::float16_t, F32> half;
  const auto* in = static_cast<const hwy::float16_t*>(source);
  for_vectors(
      n, hn::Lanes(d), [&](std::int64_t i) HWY_ATTR { hn::StoreU(PromoteF16(d, hn::LoadU(half, in + i)), d, out + i); },
      [&](std::int64_t i, std::int64_t left) HWY_ATTR {
        hwy::float16_t padded[HWY_MAX_BYTES / sizeof(float)] = {};
        float values[HWY_MAX_BYTES / sizeof(float)];
        std::memcpy(padded, in + i, static_cast<std::size_t>(left) * sizeof *in);
        hn::StoreU(PromoteF16(d, hn::LoadU(half, padded)), d, values);
        std::memcpy(out + i, values, static_cast<std::size_t>(left) * sizeof *out);
      });
}

// One stage of the transform: (a+b)+(c-d), (a+b)-(c-d), (a-b)+(c+d), (c+d)-(a-b).
template <class V>
HWY_INLINE void Butterfly(V& a, V& b, V& c, V& d) {
  const V p = hn::Add(a, b);
  const V m = hn::Sub(a, b);
  const V q = hn::Add(c, d);
  const V n = hn::Sub(c, d);
  a = hn::Add(p, n);
  b = hn::Sub(p, n);
  c = hn::Add(q, m);
  d = hn::Sub(q, m);
}

// A stage whose runs of `stride` values are whole vectors.
HWY_INLINE void StridedStage(float* x, std::int64_t group, std::int64_t stride) {
  StridedPass<4>(x, group, stride, [](hn::Vec<Up16>* v) HWY_ATTR { Butterfly(v[0], v[1], v[2], v[3]); });
}

// The stages of `stride` and 4 * stride in one pass over memory.
HWY_INLINE void TwoStridedStages(float* x, std::int64_t group, std::int64_t stride) {
  StridedPass<16>(x, group, stride, [](hn::Vec<Up16>* v) HWY_ATTR {
    for (int k = 0; k < 16; k += 4) Butterfly(v[k], v[k + 1], v[k + 2], v[k + 3]);
    for (int k = 0; k < 4; ++k) Butterfly(v[k], v[k + 4], v[k + 8], v[k + 12]);
  });
}

#if HWY_TARGET == HWY_SCALAR
// The stages of strides 1 and 4 (of 1 alone for a group of 4), after multiplication by `factor`.
HWY_INLINE void FirstStages(float* x, std::int64_t group, float factor) {
  for (std::int64_t i = 0; i < group; ++i) x[i] *= factor;
  StridedStage(x, group, 1);
  if (group > 4) StridedStage(x, group, 4);
}
#else
struct RegularStages {
  // The stage of stride 1: inside each run of four values.
  template <class D>
  static HWY_INLINE hn::Vec<D> Inside(D d, hn::Vec<D> x) {
    alignas(16) static constexpr float kOddNegative[4] = {0.0f, -0.0f, 0.0f, -0.0f};
    const auto odd_negative = hn::LoadDup128(d, kOddNegative);
    const auto pairs = hn::Add(hn::DupEven(x), hn::Xor(hn::DupOdd(x), odd_negative));  // a+b, a-b, c+d, c-d
    const auto crossed = hn::Shuffle1032(hn::DupOdd(pairs));                           // c-d, c-d, a-b, a-b
    return hn::Add(hn::DupEven(pairs), hn::Xor(crossed, odd_negative));
  }

  // Stride 4.
  template <class V>
  static HWY_INLINE void Between(V& a, V& b, V& c, V& d) {
    Butterfly(a, b, c, d);
  }
};

HWY_INLINE void FirstStages(float* x, std::int64_t group, float factor) {
  if (group == 4) {
    const hn::FixedTag<float, 4> d;
    return hn::StoreU(RegularStages::Inside(d, hn::Mul(hn::LoadU(d, x), hn::Set(d, factor))), d, x);
  }
  FirstStagesOf<RegularStages>(x, group, factor);
}
#endif

void RotateGroups(float* values, std::int64_t n, std::int64_t group) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(group));  // a power of two: exact, whenever it is applied
  for (float* x = values; x < values + n; x += group) {
    FirstStages(x, group, factor);
    std::int64_t stride = 16;
    for (; stride * 16 <= group; stride *= 16) TwoStridedStages(x, group, stride);
    for (; stride < group; stride *= 4) StridedStage(x, group, stride);
  }
}

// Magnitudes compare like the integers of their bits, and whatever is not finite compares above all that is.
float LargestMagnitude(const float* values, std::int64_t n) {
  const F32 d;
  const hn::RebindToSigned<F32> di;
  const auto magnitude = hn::Set(di, 0x7fffffff);
  auto largest0 = hn::Zero(di);
  auto largest1 = hn::Zero(di);
  const std::int64_t lanes = hn::Lanes(d);
  std::int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    largest0 = hn::Max(largest0, hn::And(hn::BitCast(di, hn::LoadU(d, values + i)), magnitude));
    largest1 = hn::Max(largest1, hn::And(hn::BitCast(di, hn::LoadU(d, values + i + lanes)), magnitude));
  }
  std::int32_t bits = hn::GetLane(hn::MaxOfLanes(di, hn::Max(largest0, largest1)));
  for (; i < n; ++i) bits = std::max(bits, std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff);
  return std::bit_cast<float>(bits);
}

void TileMagnitudes(const float* values, std::int64_t n, std::int64_t tile_columns, float* magnitudes) {
  for (std::int64_t first = 0; first < n; first += tile_columns)
    *magnitudes++ = LargestMagnitude(values + first, std::min(tile_columns, n - first));
}

void RoundCodes(const float* values, std::int64_t n, float scale, int lowest, int highest, std::int8_t* codes) {
  const F32 d;
  const hn::Rebind<std::int8_t, F32> d8;
  const auto divisor = hn::Set(d, scale);
  const auto low = hn::Set(d, static_cast<float>(lowest));
  const auto high = hn::Set(d, static_cast<float>(highest));
  const auto round = [&](auto x) HWY_ATTR { return hn::DemoteTo(d8, hn::NearestInt(hn::Min(hn::Max(hn::Div(x, divisor), low), high))); };
  for_vectors(
      n, hn::Lanes(d), [&](std::int64_t i) HWY_ATTR { hn::StoreU(round(hn::LoadU(d, values + i)), d8, codes + i); },
      [&](std::int64_t i, std::int64_t left) HWY_ATTR {
        float padded[HWY_MAX_BYTES / sizeof(float)] = {};
        std::int8_t rounded[HWY_MAX_BYTES / sizeof(float)];
        std::memcpy(padded, values + i, static_cast<std::size_t>(left) * sizeof *values);
        hn::StoreU(round(hn::LoadU(d, padded)), d8, rounded);
        std::memcpy(codes + i, rounded, static_cast<std::size_t>(left));
      });
}

void ScaleCodes(const std::int8_t* codes, std::int64_t n, float scale, float* out) {
  const F32 d;
  const hn::Rebind<std::int32_t, F32> d32;
  const hn::Rebind<std::int8_t, F32> d8;
  const auto factor = hn::Set(d, scale);
  for_vectors(
      n, hn::Lanes(d),
      [&](std::int64_t i)
          HWY_ATTR { hn::StoreU(hn::Mul(hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, codes + i))), factor), d, out + i); },
      [&](std::int64_t i, std::int64_t left) {
        for (std::int64_t j = i; j < i + left; ++j) out[j] = static_cast<float>(codes[j]) * scale;
      });
}

void AddErrorsInDouble(const float* original, const float* decoded, std::int64_t n, double& squared_error, double& squared_signal,
                       float& largest_error) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float error = original[i] - decoded[i];
    squared_error += static_cast<double>(error) * static_cast<double>(error);
    squared_signal += static_cast<double>(original[i]) * static_cast<double>(original[i]);
    largest_error = std::max(largest_error, std::fabs(error));
  }
}

void AddErrors(const float* original, const float* decoded, std::int64_t n, double& squared_error, double& squared_signal,
               float& largest_error) {
  const F32 d;
  const std::int64_t lanes = hn::Lanes(d);
  constexpr std::int64_t kBlock = 1024;  // F32 sums of this many squares are exact to 1e-5, if no square leaves the range of F32
  const auto is_in_range = [](float sum) { return sum > 1e-29f && sum < 1e37f; };
  std::int64_t i = 0;
  while (i + lanes <= n) {
    auto errors = hn::Zero(d);
    auto signals = hn::Zero(d);
    auto largest = hn::Zero(d);
    const std::int64_t begin = i;
    const std::int64_t end = std::min(n, i + kBlock);
    for (; i + lanes <= end; i += lanes) {
      const auto x = hn::LoadU(d, original + i);
      const auto error = hn::Sub(x, hn::LoadU(d, decoded + i));
      errors = hn::MulAdd(error, error, errors);
      signals = hn::MulAdd(x, x, signals);
      largest = hn::Max(largest, hn::Abs(error));
    }
    const float error_sum = hn::GetLane(hn::SumOfLanes(d, errors)), signal_sum = hn::GetLane(hn::SumOfLanes(d, signals));
    const float largest_of_block = hn::GetLane(hn::MaxOfLanes(d, largest));
    if (is_in_range(signal_sum) && (is_in_range(error_sum) || largest_of_block == 0)) {
      squared_error += static_cast<double>(error_sum);
      squared_signal += static_cast<double>(signal_sum);
      largest_error = std::max(largest_error, largest_of_block);
    } else {
      AddErrorsInDouble(original + begin, decoded + begin, i - begin, squared_error, squared_signal, largest_error);
    }
  }
  AddErrorsInDouble(original + i, decoded + i, n - i, squared_error, squared_signal, largest_error);
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {

HWY_EXPORT(LoadBf16);
HWY_EXPORT(LoadF16);
HWY_EXPORT(RotateGroups);
HWY_EXPORT(LargestMagnitude);
HWY_EXPORT(TileMagnitudes);
HWY_EXPORT(RoundCodes);
HWY_EXPORT(ScaleCodes);
HWY_EXPORT(AddErrors);
HWY_EXPORT(TargetName);

template <class Source>
void load_scalar(const void* source, std::int64_t n, float* out) {
  const auto* in = static_cast<const Source*>(source);
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]);
}

}  // namespace

void load_f32(const void* source, DType dtype, std::int64_t n, float* out) {
  switch (dtype) {
    case DType::bf16:
      return HWY_DYNAMIC_DISPATCH(LoadBf16)(source, n, out);
    case DType::f16:
      return HWY_DYNAMIC_DISPATCH(LoadF16)(source, n, out);
    case DType::f32:
      std::memcpy(out, source, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::f64:
      return load_scalar<double>(source, n, out);
    case DType::f8_e4m3:
      return load_scalar<c10::Float8_e4m3fn>(source, n, out);
    case DType::f8_e5m2:
      return load_scalar<c10::Float8_e5m2>(source, n, out);
    default:
      break;
  }
  throw Error(ErrorKind::internal, std::string(dtype_name(dtype)) + " values were to be read as real numbers");
}

void rotate_groups(float* values, std::int64_t n, std::int64_t group) { HWY_DYNAMIC_DISPATCH(RotateGroups)(values, n, group); }

void tile_magnitudes(const float* values, std::int64_t n, std::int64_t tile_columns, float* magnitudes) {
  HWY_DYNAMIC_DISPATCH(TileMagnitudes)(values, n, tile_columns, magnitudes);
}

float largest_magnitude(const float* values, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(LargestMagnitude)(values, n); }

void round_codes(const float* values, std::int64_t n, float scale, int lowest, int highest, std::int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RoundCodes)(values, n, scale, lowest, highest, codes);
}

void scale_codes(const std::int8_t* codes, std::int64_t n, float scale, float* out) {
  HWY_DYNAMIC_DISPATCH(ScaleCodes)(codes, n, scale, out);
}

void ErrorSums::merge(const ErrorSums& other) {
  squared_error += other.squared_error;
  squared_signal += other.squared_signal;
  largest_error = std::isnan(other.largest_error) || other.largest_error > largest_error ? other.largest_error : largest_error;
  count += other.count;
}

void add_errors(const float* original, const float* decoded, std::int64_t n, ErrorSums& sums) {
  ErrorSums row;
  float largest = 0;
  HWY_DYNAMIC_DISPATCH(AddErrors)(original, decoded, n, row.squared_error, row.squared_signal, largest);
  // A vector maximum may pass over NaN; the sum of squares does not.
  row.largest_error = std::isnan(row.squared_error) ? row.squared_error : largest;
  row.count = n;
  sums.merge(row);
}

std::string_view simd_name() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

}  // namespace qmill
#endif  // HWY_ONCE
