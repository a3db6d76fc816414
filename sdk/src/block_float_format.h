// Floats that share a scale per block of columns: ComfyUI's nvfp4 (4-bit floats, 16 columns) and mxfp8 (8-bit floats,
// 32 columns). Rows and columns are stored padded with zeros, and the scales in the order that tensor cores read them in.
#pragma once

#include <qmill/coded_format.h>

namespace qmill {

// Where the scale of (row, block) lies in a matrix of scales that is stored as [rows rounded up to 128, blocks rounded up to 4].
std::int64_t swizzled_scale(std::int64_t row, std::int64_t block, std::int64_t stored_blocks);

// What both share: marked by name, a matrix of scales, padded shapes. Readers know the true shape from the model; where it is padded, our
// marker says it, too. In files of other writers the bias tells the number of rows, and nothing that of columns.
class BlockFloatFormat : public CodedFormat {
 public:
  const FormatInfo& info() const override { return info_; }
  std::vector<Scaling> scalings(std::string_view name) const override;
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override;
  std::string misfit(const TensorInfo& weight, const StorageOptions& wanted) const override;
  FormatLabel label(const Layout& layout) const override;
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override;
  const Grid& grid() const override { return grid_; }
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override;
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const override;

 protected:
  BlockFloatFormat(FormatInfo info, DType code, int codes_per_byte, std::int64_t block, std::int64_t padding, Grid grid);

  // U8 of `shape`: the codes as bits, padded with zeros, in rows of bytes; two codes in a byte: the even column in the high nibble.
  at::Tensor packed(const CodedWeight& coded, at::IntArrayRef shape) const;
  // U8 of `shape`: `bits_of(scale)` of each block in the order of readers; zero where all codes are.
  template <class Bits>
  at::Tensor swizzled(const CodedWeight& coded, at::IntArrayRef shape, Bits bits_of) const;

  const std::int64_t block_;  // columns that share a scale

 private:
  void require_expressible(const StorageOptions& wanted) const;
  virtual bool takes_scale(DType dtype) const = 0;
  virtual bool has_tensor_scale() const = 0;
  // Why padded rows stop a reader; empty: they do not.
  virtual std::string_view trouble_with_padded_rows() const = 0;

  const FormatInfo info_;
  const DType code_;
  const int codes_per_byte_;
  const std::int64_t padding_;  // sides are stored as multiples of it
  const Grid grid_;
};

class Nvfp4Format final : public BlockFloatFormat {
 public:
  Nvfp4Format();
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  bool takes_scale(DType dtype) const override { return dtype == DType::f8_e4m3 || dtype == DType::u8; }
  bool has_tensor_scale() const override { return true; }
  std::string_view trouble_with_padded_rows() const override { return {}; }
};

class Mxfp8Format final : public BlockFloatFormat {
 public:
  Mxfp8Format();
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

 private:
  bool takes_scale(DType dtype) const override { return dtype == DType::u8 || dtype == DType::f8_e8m0; }
  bool has_tensor_scale() const override { return false; }
  // comfy-kitchen adds the bias before it cuts the padding off, and raises ValueError.
  std::string_view trouble_with_padded_rows() const override { return "readers that multiply in this format fail at its bias"; }
};

}  // namespace qmill
