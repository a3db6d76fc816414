// INT8 with F32 scales per row, tensor, block or axis; per row also in the regular-Hadamard basis.
#pragma once

#include <qmill/coded_format.h>

namespace qmill {

class Int8Format final : public CodedFormat {
 public:
  const FormatInfo& info() const override;
  std::vector<Scaling> scalings(std::string_view name) const override;
  bool can_rotate(Scaling scaling) const override;
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  const Grid& grid() const override;
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;
};

}  // namespace qmill
