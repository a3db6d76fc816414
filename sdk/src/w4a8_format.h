// 4-bit codes of 16 levels with an E4M3 scale per group of columns and an F32 scale per row, in the regular-Hadamard basis: ComfyUI's
// asym_w4a8_int8. Levels times the group's scale are rounded to 8-bit integers, which readers multiply.
#pragma once

#include <qmill/coded_format.h>

namespace qmill {

class W4a8Format final : public CodedFormat {
 public:
  const FormatInfo& info() const override;
  std::vector<Scaling> scalings(std::string_view name) const override;
  bool can_rotate(Scaling scaling) const override;
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  std::string misfit(const TensorInfo& weight, const StorageOptions& wanted) const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  const Grid& grid() const override;
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const override;
  // Without the codebook, where the layer has none.
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;
};

}  // namespace qmill
