// 4-bit codes with scales per group and row, rotated, of other writers: ComfyUI's asym_w4a8_int8.
#pragma once

#include <qmill/stored_format.h>

namespace qmill {

class W4a8Format final : public StoredFormat {
 public:
  const FormatInfo& info() const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const override;
  // Without the codebook, where the layer has none.
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;
};

}  // namespace qmill
