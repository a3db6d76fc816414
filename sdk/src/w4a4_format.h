// INT4 in nibbles, one F32 scale per row, in the regular-Hadamard basis: ComfyUI's convrot_w4a4. Unrotated it is a
// layout of our own, int4_rowwise.
#pragma once

#include <qmill/coded_format.h>

namespace qmill {

class W4a4Format final : public CodedFormat {
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
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;
};

}  // namespace qmill
