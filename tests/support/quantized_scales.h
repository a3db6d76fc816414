// Formats whose scales are quantized, too: to powers of two, and to a scale of the tensor times an E4M3 per block.
#pragma once

#include <qmill/coded_format.h>
#include <qmill/names.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

namespace qmill::testing {

// One level: the power of two above what is wished for.
class PowersOfTwo final : public ScaleGrid {
 public:
  at::Tensor stored(const at::Tensor& wished, const at::Tensor&) const override { return wished.log2().ceil().clamp(-100, 100).exp2(); }
};

// Two levels, as nvfp4 has them.
class TensorTimesE4m3 final : public ScaleGrid {
 public:
  at::Tensor common(const at::Tensor& peaks) const override { return peaks.max().div(448 * 6).clamp_min(1e-30); }
  at::Tensor stored(const at::Tensor& wished, const at::Tensor& common) const override {
    const at::Tensor blocks = wished.div(common).clamp(0.001953125, 448).to(at::kFloat8_e4m3fn).to(at::kFloat);
    return blocks * common;
  }
};

// Codes I8 [N,K]; scales as F32 exponents, or as E4M3 and one F32. What encode() was given stays in `seen`.
class QuantizedScales final : public CodedFormat {
 public:
  QuantizedScales(const ScaleGrid& scales, std::vector<float> values) {
    grid_.highest = values.empty() ? 7 : static_cast<int>(values.size() / 2);
    grid_.lowest = -grid_.highest;
    grid_.values = std::move(values);
    grid_.scale_grid = &scales;
    has_levels_ = dynamic_cast<const TensorTimesE4m3*>(&scales) != nullptr;
  }

  const FormatInfo& info() const override {
    static const FormatInfo info = {"test.quantized_scales", {}, "", true};
    return info;
  }
  const Grid& grid() const override { return grid_; }
  Layout layout(const TensorInfo& weight, const StorageOptions&) const override {
    Layout layout;
    layout.scaling = Scaling::block;
    layout.tile_columns = std::min<std::int64_t>(16, weight.shape[1]);
    return layout;
  }
  FormatLabel label(const Layout&) const override { return {"test", "", "test"}; }
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override {
    const std::string base = layer_base(weight.name);
    const std::vector<std::int64_t> tiles = {weight.shape[0], (weight.shape[1] + layout.tile_columns - 1) / layout.tile_columns};
    std::vector<TensorInfo> outputs = {{weight.name, DType::i8, weight.shape}};
    outputs.push_back({base + ".scale", has_levels_ ? DType::f8_e4m3 : DType::i8, tiles});
    if (has_levels_) outputs.push_back({base + ".scale_2", DType::f32, {}});
    return outputs;
  }
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override {
    seen = coded;
    const std::vector<TensorInfo> infos = outputs(weight, layout);
    std::vector<StoredTensor> stored = {{infos[0].name, coded.codes}};
    if (has_levels_) {
      stored.push_back({infos[1].name, coded.scales.div(coded.common_scale).to(at::kFloat8_e4m3fn)});
      stored.push_back({infos[2].name, coded.common_scale});
    } else {
      stored.push_back({infos[1].name, coded.scales.log2().to(at::kChar)});
    }
    return stored;
  }
  std::optional<Layout> recognise(const StoredLayerInfo&) const override { return std::nullopt; }
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override {
    const std::int64_t columns = tensors[0].size(1);
    at::Tensor scales = tensors[1].to(at::kFloat);
    scales = has_levels_ ? scales * tensors[2] : scales.exp2();
    const auto* codes = tensors[0].const_data_ptr<std::int8_t>();
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t k = 0; k < columns; ++k)
        *out++ = grid_.value(codes[row * columns + k]) *
                 scales.const_data_ptr<float>()[row * scales.size(1) + k / layout.tile_columns];
  }

  mutable CodedWeight seen;

 private:
  Grid grid_;
  bool has_levels_ = false;
};

inline std::vector<float> e2m1_values() { return {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6}; }

// The weight as the format decodes it; a test compares it with what the quantizer saw.
inline at::Tensor decoded_by(const CodedFormat& format, const std::vector<StoredTensor>& stored, const Layout& layout, at::IntArrayRef shape) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored) tensors.push_back(tensor.data);
  at::Tensor values = at::empty(shape, at::kFloat);
  format.decode_rows(tensors, layout, 0, shape[0], values.mutable_data_ptr<float>());
  return values;
}

// Codes times the scales that a quantizer chose them for.
inline at::Tensor as_seen(const CodedWeight& coded, const Grid& grid, const Layout& layout) {
  at::Tensor values = at::empty(coded.codes.sizes(), at::kFloat);
  const std::int64_t columns = coded.codes.size(1);
  for (std::int64_t i = 0; i < values.numel(); ++i)
    values.mutable_data_ptr<float>()[i] =
        grid.value(coded.codes.const_data_ptr<std::int8_t>()[i]) *
        coded.scales.const_data_ptr<float>()[i / columns / layout.tile_rows * coded.scales.size(1) + i % columns / layout.tile_columns];
  return values;
}

}  // namespace qmill::testing
