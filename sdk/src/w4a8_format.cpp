#include "w4a8_format.h"

#include "marker.h"
#include "small_floats.h"
#include "writing_rules.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/grid_rounder.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace qmill {
namespace {

constexpr const char* kName = "asym_w4a8_int8";
constexpr std::int64_t kCodes = 16;
constexpr int kLowest = -8;         // code of nibble 0
constexpr std::int64_t kStep = 16;  // readers take whole runs of these columns
constexpr std::int64_t kDefaultGroup = 16;
constexpr std::int64_t kDefaultRotation = 256;

std::int64_t optional_integer(const nlohmann::json& marker, const char* key, std::int64_t initial, std::string_view base) {
  return marker.contains(key) ? positive_integer(marker, key, base) : initial;
}

// Of tensors as outputs() orders them; the marker, which follows it, is U8.
bool is_codebook(const at::Tensor& tensor) { return tensor.scalar_type() == at::kFloat && tensor.numel() == kCodes; }

// The levels that comfy-kitchen writes unless weights are far from normal: those of least squared error for rotated weights over the largest
// magnitude of their group.
constexpr float kLevels[kCodes] = {-0.980602f, -0.794529f, -0.638165f, -0.500986f, -0.377321f, -0.263187f, -0.155210f, -0.050720f,
                                   0.052541f,  0.156985f,  0.265284f,  0.379533f,  0.502636f,  0.638953f,  0.794876f,  0.980671f};

constexpr float kSmallest = 1e-8f;  // of a scale, as comfy-kitchen has it
constexpr int kRefinements = 2;

const Grid& levels() {
  static const Grid grid = {kLowest, kLowest + static_cast<int>(kCodes) - 1, {std::begin(kLevels), std::end(kLevels)}};
  return grid;
}

// The scale of least squares for some codes. Sums of four, side by side and in a fixed order.
float fitted_scale(const float* values, const std::int8_t* codes, std::int64_t count) {
  constexpr int kSums = 4;
  const float* level_of = kLevels - kLowest;  // by code
  float product[kSums] = {}, squares[kSums] = {};
  std::int64_t k = 0;
  for (; k + kSums <= count; k += kSums)
    for (int i = 0; i < kSums; ++i) {
      const float level = level_of[codes[k + i]];
      product[i] += values[k + i] * level;
      squares[i] += level * level;
    }
  const auto sum = [](const float* sums) { return (sums[0] + sums[1]) + (sums[2] + sums[3]); };
  return sum(product) / std::max(sum(squares), kSmallest);
}

// Half to even: 1.5 x 2^23 more, a float has no digits after the point. For |x| up to 2^22.
float rounded(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// One scale per row, F32, times E4M3 per group; what codes are worth is rounded to 8-bit integers.
class RowTimesE4m3 final : public ScaleGrid {
 public:
  // comfy-kitchen's scales: from the largest magnitude by alternating least squares, codes for the scale, then the scale for these codes.
  float wish(const float* row, std::int64_t n, std::int64_t tile_columns, const Grid&, float* wished) const override {
    static const GridRounder rounder(levels());
    thread_local std::vector<std::int8_t> codes;
    codes.resize(static_cast<std::size_t>(tile_columns));
    const float* level_of = kLevels - kLowest;  // by code
    float peak = 0;
    for (std::int64_t first = 0; first < n; first += tile_columns) {
      const std::int64_t count = std::min(tile_columns, n - first);
      const float* values = row + first;
      const std::int8_t* code = codes.data();
      const float largest = largest_magnitude(values, count);
      if (!std::isfinite(largest)) return largest;
      float scale = std::max(largest, kSmallest);
      for (int pass = 0; pass < kRefinements; ++pass) {
        rounder.round(values, count, scale, codes.data());
        scale = std::max(fitted_scale(values, code, count), kSmallest);
      }
      rounder.round(values, count, scale, codes.data());
      const auto [lowest, highest] = std::minmax_element(code, code + count);  // the levels ascend
      peak = std::max({peak, -level_of[*lowest] * scale, level_of[*highest] * scale});
      *wished++ = scale;
    }
    return peak;
  }

  at::Tensor common(const at::Tensor& peaks) const override { return peaks.div(127).clamp_min(static_cast<double>(kSmallest)); }

  at::Tensor stored(const at::Tensor& wished, const at::Tensor& common) const override {
    const at::Tensor scales = at::empty_like(wished), in = wished.contiguous(), rows = common.contiguous();
    const std::int64_t groups = in.size(1);
    const auto* from = in.const_data_ptr<float>();
    const auto* row_scales = rows.const_data_ptr<float>();
    auto* to = scales.mutable_data_ptr<float>();
    for (std::int64_t row = 0; row < in.size(0); ++row)
      for (std::int64_t i = row * groups; i < (row + 1) * groups; ++i)
        to[i] = times_e4m3(row_scales[row], from[i]);
    return scales;
  }

  bool rounds_values() const override { return true; }

  void round_values(const Grid&, float scale, float common, float* values) const override {
    const float relative = e4m3_value(e4m3_bits(scale / common));
    for (int i = 0; i < kCodes; ++i) values[i] = std::clamp(rounded(kLevels[i] * relative), -127.0f, 127.0f) * common;
  }
};

// 0: none.
std::int64_t rotation_for(std::int64_t columns, const Rotation& rotation) {
  if (rotation.mode == Rotation::Mode::fixed) return columns % rotation.group == 0 ? rotation.group : 0;
  for (const std::int64_t group : {256, 64, 16})
    if (columns % group == 0) return group;
  return 0;
}

std::int64_t group_size(const StorageOptions& wanted) {
  const std::int64_t size = wanted.scaling ? wanted.block_size.value_or(kDefaultGroup) : kDefaultGroup;
  if (size != 4 && size != 8 && (size < kStep || size % kStep != 0))
    throw Error(ErrorKind::usage, fmt::format("{} has groups of 4, 8 or a multiple of 16 columns; found a block size of {}", kName, size),
                "use `block_size 16`");
  return size;
}

void require_rotated_wishes(const FormatInfo& info, const StorageOptions& wanted) {
  require_wishes(info, wanted, Scaling::block);
  if (wanted.rotation.mode == Rotation::Mode::off)
    throw Error(ErrorKind::usage, fmt::format("{} is always rotated; found rotation 'off'", kName), "leave it out, or use `format nvfp4`");
  if (wanted.rotation.mode == Rotation::Mode::fixed) parse_rotation(rotation_text(wanted.rotation));
}

struct W4a8Data final : FormatData {
  bool full_precision_matrix_mult = false;

  std::string text() const override { return full_precision_matrix_mult ? "full precision" : ""; }
};

}  // namespace

const FormatInfo& W4a8Format::info() const {
  static const FormatInfo info = {kName, {"w4a8"}, "4-bit codes with an E4M3 scale per 16 columns, rotated; computed in 8 bits", true, false, "int8"};
  return info;
}

std::vector<Scaling> W4a8Format::scalings(std::string_view) const { return {Scaling::block}; }

bool W4a8Format::can_rotate(Scaling scaling) const { return scaling == Scaling::block; }

Layout W4a8Format::layout(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_matrix(info(), weight);
  if (const std::string reason = misfit(weight, wanted); !reason.empty())
    throw Error(ErrorKind::unsupported, fmt::format("{} cannot store '{}' {}: {}", kName, weight.name, weight.shape_text(), reason));
  Layout layout;
  layout.scaling = Scaling::block;
  layout.tile_columns = group_size(wanted);
  layout.rotation_group = rotation_for(weight.shape[1], wanted.rotation);
  const auto data = std::make_shared<W4a8Data>();
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  layout.data = data;
  return layout;
}

std::string W4a8Format::misfit(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_rotated_wishes(info(), wanted);
  const std::int64_t group = group_size(wanted);
  if (!is_matrix(weight)) return {};
  const std::int64_t columns = weight.shape[1];
  for (const std::int64_t divisor : {kStep, group})
    if (columns % divisor != 0) return fmt::format("{} does not divide its {} columns", divisor, columns);
  return rotation_for(columns, wanted.rotation) != 0 ? std::string()
                                                       : fmt::format("{} does not divide its {} columns", wanted.rotation.group, columns);
}

const Grid& W4a8Format::grid() const {
  static const RowTimesE4m3 scales;
  static const Grid grid = [] {
    Grid made = levels();
    made.scale_grid = &scales;
    return made;
  }();
  return grid;
}

std::vector<StoredTensor> W4a8Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  at::Tensor packed = at::empty(infos[0].shape, at::kChar);
  const auto* codes = coded.codes.const_data_ptr<std::int8_t>();
  auto* out = packed.mutable_data_ptr<std::int8_t>();
  const std::int64_t pairs = packed.numel();
  for (std::int64_t i = 0; i < pairs; ++i)  // K is even: pairs do not cross rows
    out[i] = static_cast<std::int8_t>((codes[2 * i] - kLowest) | (codes[2 * i + 1] - kLowest) << 4);
  const at::Tensor scales = coded.scales.contiguous();
  at::Tensor relative = at::empty(infos[1].shape, at::kByte);
  auto* bits = relative.mutable_data_ptr<std::uint8_t>();
  const auto* group_scales = scales.const_data_ptr<float>();
  const auto* row_scales = coded.common_scale.const_data_ptr<float>();
  const std::int64_t groups = scales.size(1);
  for (std::int64_t row = 0; row < scales.size(0); ++row)
    for (std::int64_t i = row * groups; i < (row + 1) * groups; ++i) bits[i] = e4m3_bits(group_scales[i] / row_scales[row]);
  return {{infos[0].name, packed},
          {infos[1].name, relative.view(at::kFloat8_e4m3fn)},
          {infos[2].name, coded.common_scale},
          {infos[3].name, at::tensor(at::ArrayRef<float>(kLevels, kCodes))},
          marker_tensor(infos[4].name, label(layout).marker)};
}

FormatLabel W4a8Format::label(const Layout& layout) const {
  FormatLabel label;
  label.name = kName;
  label.summary = fmt::format("{} group {}, rotated {}", kName, layout.tile_columns, layout.rotation_group);
  nlohmann::ordered_json marker = {{"format", kName}, {"group_size", layout.tile_columns}, {"convrot_groupsize", layout.rotation_group}};
  if (data_of<W4a8Data>(layout).full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
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
