// F16 values, no scale and no marker: every reader loads them.
#pragma once

#include <qmill/coded_format.h>

namespace qmill {

class Fp16Format final : public WritableFormat {
 public:
  const FormatInfo& info() const override;
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;
};

}  // namespace qmill
