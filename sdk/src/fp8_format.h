// 8-bit floats with scales. Written is what ComfyUI reads, float8_e4m3fn and float8_e5m2 with one F32 scale. Read are also the files of
// other writers: the older ".scale_weight" beside a file-level "scaled_fp8", DeepSeek's ".weight_scale_inv", and ".weight_scale" without a
// marker; F32, BF16 or F16, one scale, one per row, or one per block.
#pragma once

#include <qmill/coded_format.h>

#include <array>

namespace qmill {

class Fp8Format final : public CodedFormat {
 public:
  explicit Fp8Format(DType dtype);  // f8_e4m3 or f8_e5m2

  const FormatInfo& info() const override { return info_; }
  std::vector<Scaling> scalings(std::string_view name) const override;
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  const Grid& grid() const override { return grid_; }
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  const FormatInfo info_;
  const DType dtype_;
  const Grid grid_;
  std::array<float, 256> values_;  // by bits
};

}  // namespace qmill
