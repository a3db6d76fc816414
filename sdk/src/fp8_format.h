// 8-bit floats with scales (F32, BF16 or F16), of other writers: ComfyUI's float8_e4m3fn and float8_e5m2, the older ".scale_weight" beside
// a file-level "scaled_fp8", DeepSeek's ".weight_scale_inv", and ".weight_scale" without a marker. One scale, one per row, or one per
// block.
#pragma once

#include <qmill/stored_format.h>

#include <array>

namespace qmill {

class Fp8Format final : public StoredFormat {
 public:
  explicit Fp8Format(DType dtype);  // f8_e4m3 or f8_e5m2

  const FormatInfo& info() const override { return info_; }
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  const FormatInfo info_;
  const DType dtype_;
  std::array<float, 256> values_;  // by code
};

}  // namespace qmill
