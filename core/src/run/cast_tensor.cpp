#include "run/cast_tensor.h"

#include <qmill/error.h>
#include <qmill/numerics/cast.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <cmath>

namespace qmill {
namespace {

// Merged values back into a type that nothing else is cast to: F64 and the eight-bit ones.
at::Tensor cast_rarely(const TensorInfo& output, const at::Tensor& values) {
  at::Tensor target = values.to(scalar_type(output.dtype));
  const at::Tensor is_lost = at::isfinite(values).logical_and(at::isfinite(target.to(at::kFloat)).logical_not());
  const auto overflowed = is_lost.sum().item<std::int64_t>();
  if (overflowed == 0) return target;
  throw Error(ErrorKind::numeric,
              fmt::format("{} of {} values are beyond the range of {} once LoRAs are merged", overflowed, values.numel(),
                          dtype_name(output.dtype)),
              "cast what is kept with `keep_dtype`, or merge with a smaller scale")
      .in(fmt::format("tensor '{}'", output.name));
}

// Of decoded values: those that a loader decoded, nobody has looked at.
void require_finite(const at::Tensor& values, const TensorInfo& output) {
  if (dtype_of(values) != DType::f32 || std::isfinite(largest_magnitude(values.const_data_ptr<float>(), values.numel()))) return;
  const auto lost = values.numel() - at::isfinite(values).sum().item<std::int64_t>();
  throw Error(ErrorKind::numeric, fmt::format("{} of {} values are not finite once they are decoded", lost, values.numel()),
              "the file is damaged; get it again, or use the original model")
      .in(fmt::format("tensor '{}'", output.name));
}

}  // namespace

StoredTensor cast_tensor(const Decision& decision, const at::Tensor& values, const ConvertOptions& options, BufferPool& buffers) {
  const TensorInfo& output = decision.outputs.front();
  if (options.decode_to) require_finite(values, output);
  if (dtype_of(values) == output.dtype) return {output.name, values};
  if (output.dtype != DType::f32 && output.dtype != DType::f16 && output.dtype != DType::bf16)
    return {output.name, cast_rarely(output, values)};
  at::Tensor target = buffers.allocate(output.shape, output.dtype);
  const bool clamps = options.written.clamp_overflow;
  const CastResult result = cast_values(values, target, clamps);
  if (result.overflowed != 0 && !clamps)
    throw Error(ErrorKind::numeric,
                fmt::format("{} of {} values are beyond the range of {}", result.overflowed, values.numel(), dtype_name(output.dtype)),
                options.decode_to ? "choose another `dtype`" : "keep another type with `keep_dtype`, or clamp with `fp16_overflow clamp`")
        .in(fmt::format("tensor '{}'", output.name));
  return {output.name, target};
}

}  // namespace qmill
