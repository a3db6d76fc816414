#include "report/row_decoder.h"

#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>

namespace qmill {
namespace {

std::int64_t columns_of(at::IntArrayRef shape) {
  std::int64_t columns = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) columns *= shape[i];
  return columns;
}

}  // namespace

RowDecoder stored_rows(std::vector<at::Tensor> stored, const TensorInfo& weight, const StoredFormat& format, const Layout& layout) {
  if (format.info().rows_independent)
    return [stored = std::move(stored), &format, layout](std::int64_t begin, std::int64_t end, float* out) {
      format.decode_rows(stored, layout, begin, end, out);
    };
  const at::Tensor decoded = at::empty(weight.shape, at::kFloat);
  format.decode_rows(stored, layout, 0, weight.shape.empty() ? 1 : weight.shape[0], decoded.mutable_data_ptr<float>());
  return plain_rows(decoded);
}

RowDecoder plain_rows(const at::Tensor& values) {
  return [values, dtype = dtype_of(values), columns = columns_of(values.sizes())](std::int64_t begin, std::int64_t end, float* out) {
    const auto* data = static_cast<const std::byte*>(values.const_data_ptr());
    load_f32(data + begin * columns * (dtype_bits(dtype) / 8), dtype, (end - begin) * columns, out);
  };
}

}  // namespace qmill
