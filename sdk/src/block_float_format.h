// Floats that share a scale per block of columns, of other writers: ComfyUI's nvfp4 (4-bit floats, 16 columns) and mxfp8 (8-bit floats,
// 32 columns). Rows and columns are stored padded with zeros, and the scales in the order that tensor cores read them in.
#pragma once

#include <qmill/stored_format.h>

namespace qmill {

// Where the scale of (row, block) lies in a matrix of scales that is stored as [rows rounded up to 128, blocks rounded up to 4].
std::int64_t swizzled_scale(std::int64_t row, std::int64_t block, std::int64_t stored_blocks);

// What both share: marked by name, a matrix of scales, padded shapes. The number of columns before padding is in no file, that of rows
// only in the bias: what decodes is cropped to the bias' length, and else has the padded shape.
class BlockFloatFormat : public StoredFormat {
 public:
  const FormatInfo& info() const override { return info_; }
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const override;

 protected:
  BlockFloatFormat(std::string name, std::string summary, DType code, int codes_per_byte, std::int64_t block, std::int64_t padding);

  const std::int64_t block_;  // columns that share a scale

 private:
  virtual bool takes_scale(DType dtype) const = 0;
  virtual bool has_tensor_scale() const = 0;

  const FormatInfo info_;
  const DType code_;
  const int codes_per_byte_;
  const std::int64_t padding_;  // sides are stored as multiples of it
};

class Nvfp4Format final : public BlockFloatFormat {
 public:
  Nvfp4Format();
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  bool takes_scale(DType dtype) const override { return dtype == DType::f8_e4m3 || dtype == DType::u8; }
  bool has_tensor_scale() const override { return true; }
};

class Mxfp8Format final : public BlockFloatFormat {
 public:
  Mxfp8Format();
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  bool takes_scale(DType dtype) const override { return dtype == DType::u8 || dtype == DType::f8_e8m0; }
  bool has_tensor_scale() const override { return false; }
};

}  // namespace qmill
