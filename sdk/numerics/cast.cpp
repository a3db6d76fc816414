#include <qmill/numerics/cast.h>

#include <qmill/error.h>
#include <qmill/numerics/row_kernels.h>

#include <cmath>
#include <limits>
#include <vector>

namespace qmill {
namespace {

constexpr std::int64_t kChunk = 4096;

template <class Target>
void store(const float* values, std::int64_t n, Target* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Target>(values[i]);
}

void store_as(DType dtype, const float* values, std::int64_t n, std::byte* out, std::int64_t first) {
  switch (dtype) {
    case DType::f16:
      return store(values, n, reinterpret_cast<c10::Half*>(out) + first);
    case DType::bf16:
      return store(values, n, reinterpret_cast<c10::BFloat16*>(out) + first);
    default:
      return store(values, n, reinterpret_cast<float*>(out) + first);
  }
}

// Values from here on round to infinity: half a step above the largest.
float overflow_bound(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return 65520.0f;
    case DType::bf16:
      return 0x1.ffp127f;
    default:
      return std::numeric_limits<float>::infinity();
  }
}

float largest(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return kLargestF16;
    case DType::bf16:
      return 0x1.fep127f;
    default:
      return std::numeric_limits<float>::max();
  }
}

}  // namespace

CastResult cast_values(const at::Tensor& source, at::Tensor& target, bool clamp) {
  const DType from = dtype_of(source);
  const DType to = dtype_of(target);
  const auto* in = static_cast<const std::byte*>(source.const_data_ptr());
  auto* out = static_cast<std::byte*>(target.mutable_data_ptr());
  if (to != DType::f16 && to != DType::bf16 && to != DType::f32)
    throw Error(ErrorKind::internal,
                std::string("a cast was asked for to ") + std::string(dtype_name(to)) + ", known are F16, BF16 and F32");
  const std::int64_t element = dtype_bits(from) / 8;
  const float bound = overflow_bound(to);
  CastResult result;
  std::vector<float> values(kChunk);
  for (std::int64_t first = 0; first < source.numel(); first += kChunk) {
    const std::int64_t n = std::min(kChunk, source.numel() - first);
    load_f32(in + first * element, from, n, values.data());
    for (std::int64_t i = 0; i < n; ++i) {
      float& value = values[static_cast<std::size_t>(i)];
      // An F64 beyond F32 arrives here as infinity although the source is finite.
      const bool finite = from == DType::f64 ? std::isfinite(reinterpret_cast<const double*>(in)[first + i]) : std::isfinite(value);
      result.not_finite += finite ? 0 : 1;
      if (finite && std::fabs(value) >= bound) {
        ++result.overflowed;
        if (clamp) value = std::copysign(largest(to), value);
      }
    }
    store_as(to, values.data(), n, out, first);
  }
  return result;
}

}  // namespace qmill
