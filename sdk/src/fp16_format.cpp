#include "fp16_format.h"

#include <qmill/numerics/row_kernels.h>

namespace qmill {

const FormatInfo& Fp16Format::info() const {
  static const FormatInfo info = {"fp16", {"f16", "float16"}, "16-bit floats, no scales", true, true};
  return info;
}

Layout Fp16Format::layout(const TensorInfo&, const StorageOptions&) const { return {}; }

FormatLabel Fp16Format::label(const Layout&) const { return {"fp16", "", "fp16"}; }

std::vector<TensorInfo> Fp16Format::outputs(const TensorInfo& weight, const Layout&) const {
  return {{weight.name, DType::f16, weight.shape}};
}

std::optional<Layout> Fp16Format::recognise(const StoredLayerInfo& layer) const {
  if (layer.weight.dtype != DType::f16 || !layer.marker.empty()) return std::nullopt;
  return Layout{};
}

void Fp16Format::decode_rows(std::span<const at::Tensor> tensors, const Layout&, std::int64_t begin, std::int64_t end, float* out) const {
  const at::Tensor& values = tensors[0];
  const std::int64_t columns = values.size(0) == 0 ? 0 : values.numel() / values.size(0);
  load_f32(values.const_data_ptr<c10::Half>() + begin * columns, DType::f16, (end - begin) * columns, out);
}

}  // namespace qmill
