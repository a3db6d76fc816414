#include "block_float_format.h"

#include "marker.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace qmill {
namespace {

constexpr std::int64_t kScaleRows = 128;
constexpr std::int64_t kScaleColumns = 4;

// Which part of the padded matrix is the weight.
struct PaddedData final : FormatData {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  bool full_precision_matrix_mult = false;

  std::string text() const override {
    return fmt::format("{}x{}{}", rows, columns, full_precision_matrix_mult ? " full precision" : "");
  }
};

std::int64_t rounded_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

std::int64_t swizzled_scale(std::int64_t row, std::int64_t block, std::int64_t stored_blocks) {
  const std::int64_t tile = row / kScaleRows * (stored_blocks / kScaleColumns) + block / kScaleColumns;
  return tile * (kScaleRows * kScaleColumns) + row % 32 * 16 + row % kScaleRows / 32 * 4 + block % kScaleColumns;
}

BlockFloatFormat::BlockFloatFormat(std::string name, std::string summary, DType code, int codes_per_byte, std::int64_t block,
                                   std::int64_t padding)
    : block_(block),
      info_{std::move(name), {}, std::move(summary), true},
      code_(code),
      codes_per_byte_(codes_per_byte),
      padding_(padding) {}

FormatLabel BlockFloatFormat::label(const Layout& layout) const {
  FormatLabel label;
  label.name = info().name;
  label.summary = fmt::format("{} block {}", label.name, block_);
  nlohmann::ordered_json marker = {{"format", label.name}};
  if (data_of<PaddedData>(layout).full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
  return label;
}

std::vector<TensorInfo> BlockFloatFormat::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = layer_base(weight.name);
  const std::int64_t rows = rounded_up(weight.shape[0], padding_);
  const std::int64_t columns = rounded_up(weight.shape[1], padding_);
  std::vector<TensorInfo> outputs = {{weight.name, code_, {rows, columns / codes_per_byte_}}};
  outputs.push_back({base + ".weight_scale",
                     has_tensor_scale() ? DType::f8_e4m3 : DType::u8,
                     {rounded_up(rows, kScaleRows), rounded_up(columns / block_, kScaleColumns)}});
  if (has_tensor_scale()) outputs.push_back({base + ".weight_scale_2", DType::f32, {}});
  outputs.push_back({base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}});
  return outputs;
}

std::optional<Layout> BlockFloatFormat::recognise(const StoredLayerInfo& layer) const {
  if (layer.marker.empty()) return std::nullopt;
  const nlohmann::json marker = parse_marker(layer.marker);
  if (marked_format(marker) != info().name) return std::nullopt;

  const TensorInfo& weight = layer.weight;
  constexpr std::int64_t kLargestSide = std::int64_t{1} << 40;  // no product below overflows
  const bool has_values = weight.shape.size() == 2 && weight.shape[0] > 0 && weight.shape[1] > 0 && weight.shape[0] <= kLargestSide &&
                          weight.shape[1] <= kLargestSide;
  if (weight.dtype != code_ || !has_values || weight.shape[0] % padding_ != 0 || weight.shape[1] * codes_per_byte_ % padding_ != 0)
    throw contradiction(info(), layer, weight.name, &weight,
                        fmt::format("{} with rows and columns in multiples of {}", dtype_name(code_), padding_));
  Layout layout;
  layout.scaling = Scaling::block;
  layout.tile_columns = block_;
  const auto data = std::make_shared<PaddedData>();
  layout.data = data;
  data->full_precision_matrix_mult = says_true(marker, "full_precision_matrix_mult");
  data->rows = weight.shape[0];
  data->columns = weight.shape[1] * codes_per_byte_;
  const std::vector<TensorInfo> expected = outputs({layer.weight.name, code_, {data->rows, data->columns}}, layout);
  const TensorInfo* scale = find_other(layer, "weight_scale");
  if (scale == nullptr || !takes_scale(scale->dtype) || scale->shape != expected[1].shape)
    throw contradiction(info(), layer, layer.base + ".weight_scale", scale,
                        fmt::format("{} {}", dtype_name(expected[1].dtype), expected[1].shape_text()));
  if (has_tensor_scale()) {
    const TensorInfo* tensor_scale = find_other(layer, "weight_scale_2");
    if (tensor_scale == nullptr || tensor_scale->dtype != DType::f32 || tensor_scale->elements() != 1)
      throw contradiction(info(), layer, layer.base + ".weight_scale_2", tensor_scale, "F32 with one value");
  }
  const TensorInfo* bias = find_other(layer, "bias");
  if (bias != nullptr && bias->shape.size() == 1 && bias->shape[0] < data->rows && bias->shape[0] > data->rows - padding_)
    data->rows = bias->shape[0];
  return layout;
}

TensorInfo BlockFloatFormat::original(const StoredLayerInfo& layer, const Layout& layout) const {
  const auto& data = data_of<PaddedData>(layout);
  return {layer.weight.name, layer.weight.dtype, {data.rows, data.columns}};
}

Nvfp4Format::Nvfp4Format() : BlockFloatFormat("nvfp4", "4-bit floats with an E4M3 scale per 16 columns; read only", DType::u8, 2, 16, 16) {}

void Nvfp4Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                              float* out) const {
  constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const std::int64_t columns = data_of<PaddedData>(layout).columns;
  const std::int64_t bytes_per_row = tensors[0].size(1);
  const std::int64_t stored_blocks = tensors[1].size(1);
  const auto* codes = tensors[0].const_data_ptr<std::uint8_t>();
  const auto* scales = static_cast<const std::byte*>(tensors[1].const_data_ptr());
  const float tensor_scale = *tensors[2].const_data_ptr<float>();
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    for (std::int64_t block = 0; block < columns / block_; ++block) {
      float scale = 0;
      load_f32(scales + swizzled_scale(row, block, stored_blocks), DType::f8_e4m3, 1, &scale);
      scale *= tensor_scale;
      for (std::int64_t i = 0; i < block_; ++i) {
        const std::int64_t column = block * block_ + i;
        const int byte = codes[row * bytes_per_row + column / 2];
        const int code = column % 2 == 0 ? byte >> 4 : byte & 0xf;  // high nibble: even column
        out[column] = ((code & 8) != 0 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7]) * scale;
      }
    }
  }
}

Mxfp8Format::Mxfp8Format()
    : BlockFloatFormat("mxfp8", "8-bit floats with a power of two per 32 columns; read only", DType::f8_e4m3, 1, 32, 32) {}

void Mxfp8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout&, std::int64_t begin, std::int64_t end,
                              float* out) const {
  constexpr int kBias = 127;
  constexpr int kNotANumber = 255;
  const std::int64_t columns = tensors[0].size(1);
  const std::int64_t stored_blocks = tensors[1].size(1);
  const auto* codes = static_cast<const std::byte*>(tensors[0].const_data_ptr());
  const auto* exponents = static_cast<const std::uint8_t*>(tensors[1].const_data_ptr());
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    load_f32(codes + row * columns, DType::f8_e4m3, columns, out);
    for (std::int64_t block = 0; block < columns / block_; ++block) {
      const int exponent = exponents[swizzled_scale(row, block, stored_blocks)];
      // Zero is the multiplier of a block of zeros, not 2^-127: so do readers take it.
      const float scale = exponent == 0             ? 0.0f
                          : exponent == kNotANumber ? std::numeric_limits<float>::quiet_NaN()
                                                    : std::ldexp(1.0f, exponent - kBias);
      for (std::int64_t i = block * block_; i < (block + 1) * block_; ++i) out[i] *= scale;
    }
  }
}

}  // namespace qmill
