#include "w4a8_format.h"

#include "marker.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace qmill {
namespace {

constexpr const char* kName = "asym_w4a8_int8";
constexpr std::int64_t kCodes = 16;
constexpr std::int64_t kDefaultGroup = 16;
constexpr std::int64_t kDefaultRotation = 256;

std::int64_t optional_integer(const nlohmann::json& marker, const char* key, std::int64_t initial, std::string_view base) {
  return marker.contains(key) ? positive_integer(marker, key, base) : initial;
}

// Of tensors as outputs() orders them; the marker, which follows it, is U8.
bool is_codebook(const at::Tensor& tensor) { return tensor.scalar_type() == at::kFloat && tensor.numel() == kCodes; }

}  // namespace

const FormatInfo& W4a8Format::info() const {
  static const FormatInfo info = {kName, {}, "4-bit codes with scales per group and row, rotated; read only", true};
  return info;
}

FormatLabel W4a8Format::label(const Layout& layout) const {
  FormatLabel label;
  label.name = kName;
  label.summary = fmt::format("{} group {}, rotated {}", kName, layout.tile_columns, layout.rotation_group);
  label.marker =
      nlohmann::ordered_json{{"format", kName}, {"group_size", layout.tile_columns}, {"convrot_groupsize", layout.rotation_group}}.dump();
  return label;
}

std::vector<TensorInfo> W4a8Format::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = layer_base(weight.name);
  const std::int64_t rows = weight.shape[0];
  const std::int64_t columns = weight.shape[1];
  return {{weight.name, DType::i8, {rows, columns / 2}},
          {base + ".weight_s_rel", DType::f8_e4m3, {rows, columns / layout.tile_columns}},
          {base + ".weight_s_channel", DType::f32, {rows}},
          {base + ".weight_codebook", DType::f32, {kCodes}},
          {base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}}};
}

std::optional<Layout> W4a8Format::recognise(const StoredLayerInfo& layer) const {
  if (layer.marker.empty()) return std::nullopt;
  const nlohmann::json marker = parse_marker(layer.marker);
  if (marked_format(marker) != kName) return std::nullopt;

  const TensorInfo& weight = layer.weight;
  constexpr std::int64_t kLargestSide = std::int64_t{1} << 40;
  if (weight.dtype != DType::i8 || weight.shape.size() != 2 || weight.shape[0] < 1 || weight.shape[1] < 1 || weight.shape[1] > kLargestSide)
    throw contradiction(info(), layer, weight.name, &weight, "I8 [N,K/2]");
  Layout layout;
  const std::int64_t rows = weight.shape[0];
  const std::int64_t columns = 2 * weight.shape[1];
  layout.scaling = Scaling::block;
  layout.tile_columns = optional_integer(marker, "group_size", kDefaultGroup, layer.base);
  layout.rotation_group = optional_integer(marker, "convrot_groupsize", kDefaultRotation, layer.base);
  if (!is_rotation_group(layout.rotation_group) || columns % layout.rotation_group != 0 || columns % layout.tile_columns != 0)
    throw Error(ErrorKind::input,
                fmt::format("layer '{}' says that its groups have {} columns and its rotation {}, expected divisors of its {} columns",
                            layer.base, layout.tile_columns, layout.rotation_group, columns));
  const TensorInfo* relative = find_other(layer, "weight_s_rel");
  const std::vector<std::int64_t> groups = {rows, columns / layout.tile_columns};
  const bool takes_relative =
      relative != nullptr && (relative->dtype == DType::f8_e4m3 || relative->dtype == DType::u8 || relative->dtype == DType::f32);
  if (!takes_relative || relative->shape != groups)
    throw contradiction(info(), layer, layer.base + ".weight_s_rel", relative, fmt::format("F8_E4M3 {} x {}", groups[0], groups[1]));
  const TensorInfo* channel = find_other(layer, "weight_s_channel");
  if (channel == nullptr || channel->dtype != DType::f32 || channel->shape != std::vector<std::int64_t>{rows})
    throw contradiction(info(), layer, layer.base + ".weight_s_channel", channel, fmt::format("F32 {}", rows));
  const TensorInfo* codebook = find_other(layer, "weight_codebook");
  if (codebook != nullptr && (codebook->dtype != DType::f32 || codebook->shape != std::vector<std::int64_t>{kCodes}))
    throw contradiction(info(), layer, codebook->name, codebook, "F32 16");
  return layout;
}

TensorInfo W4a8Format::original(const StoredLayerInfo& layer, const Layout&) const {
  return {layer.weight.name, layer.weight.dtype, {layer.weight.shape[0], 2 * layer.weight.shape[1]}};
}

void W4a8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                             float* out) const {
  const std::int64_t columns = 2 * tensors[0].size(1);
  const std::int64_t groups = columns / layout.tile_columns;
  const auto* packed = tensors[0].const_data_ptr<std::int8_t>();
  const auto* channel = tensors[2].const_data_ptr<float>();
  const bool relative_is_f32 = tensors[1].scalar_type() == at::kFloat;
  const auto* relative = static_cast<const std::byte*>(tensors[1].const_data_ptr());
  float values[kCodes];
  for (int code = 0; code < kCodes; ++code) values[code] = static_cast<float>(code - 8);
  if (tensors.size() > 3 && is_codebook(tensors[3])) std::copy_n(tensors[3].const_data_ptr<float>(), kCodes, values);
  std::vector<float> scales(static_cast<std::size_t>(groups));
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    if (relative_is_f32)
      load_f32(relative + row * groups * 4, DType::f32, groups, scales.data());
    else
      load_f32(relative + row * groups, DType::f8_e4m3, groups, scales.data());
    for (std::int64_t column = 0; column < columns; ++column) {
      const int byte = static_cast<std::uint8_t>(packed[row * (columns / 2) + column / 2]);
      const int code = column % 2 == 0 ? byte & 0xf : byte >> 4;  // low nibble: even column
      // The rounding to 8 bits is part of the format: readers multiply these integers.
      const float level = std::nearbyint(values[code] * scales[static_cast<std::size_t>(column / layout.tile_columns)]);
      out[column] = std::clamp(level, -127.0f, 127.0f) * channel[row];
    }
    rotate_groups(out, columns, layout.rotation_group);
  }
}

}  // namespace qmill
