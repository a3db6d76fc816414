#include "w4a4_format.h"

#include "marker.h"
#include "writing_rules.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <limits>

namespace qmill {
namespace {

constexpr const char* kRotated = "convrot_w4a4";
constexpr const char* kUnrotated = "int4_rowwise";
constexpr std::int64_t kReaderStep = 64;     // readers of convrot_w4a4 take whole groups of these columns
constexpr std::int64_t kUnnamedGroup = 256;  // of a marker that names none

struct W4a4Data final : FormatData {
  bool full_precision_matrix_mult = false;

  std::string text() const override { return full_precision_matrix_mult ? "full precision" : ""; }
};

void require_expressible(const FormatInfo& info, const StorageOptions& wanted) {
  if (const Scaling scaling = wanted.scaling.value_or(Scaling::row); scaling != Scaling::row)
    throw Error(ErrorKind::usage, fmt::format("int4 has one scale per row; found {} scaling", scaling_name(scaling)),
                "use `scaling_mode row`, or `format int8`");
  require_comfy_names(info, wanted);
  if (wanted.rotation.mode == Rotation::Mode::fixed) parse_rotation(rotation_text(wanted.rotation));
}

// What must divide K and does not; 0: nothing.
std::int64_t missing_divisor(std::int64_t columns, const Rotation& rotation) {
  if (rotation.mode == Rotation::Mode::off) return columns % 2 == 0 ? 0 : 2;
  if (columns % kReaderStep != 0) return kReaderStep;
  return rotation.mode == Rotation::Mode::fixed && columns % rotation.group != 0 ? rotation.group : 0;
}

// Unlike int8, this must be rotated to be read: where 256 does not divide, by less.
std::int64_t rotation_group(std::int64_t columns, const Rotation& rotation) {
  switch (rotation.mode) {
    case Rotation::Mode::off:
      return 0;
    case Rotation::Mode::fixed:
      return rotation.group;
    case Rotation::Mode::automatic:
    case Rotation::Mode::any:
      break;
  }
  return columns % 256 == 0 ? 256 : kReaderStep;
}

// Low nibble: even column.
void pack_nibbles(const std::int8_t* codes, std::int64_t pairs, std::int8_t* packed) {
  for (std::int64_t i = 0; i < pairs; ++i) packed[i] = static_cast<std::int8_t>((codes[2 * i] & 0xf) | (codes[2 * i + 1] << 4));
}

void unpack_nibbles(const std::int8_t* packed, std::int64_t pairs, std::int8_t* codes) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    codes[2 * i] = static_cast<std::int8_t>(static_cast<std::int8_t>(packed[i] << 4) >> 4);
    codes[2 * i + 1] = static_cast<std::int8_t>(packed[i] >> 4);
  }
}

// Top level, or nested in 'params': readers take both.
std::int64_t marked_group(const nlohmann::json& marker, std::string_view base) {
  constexpr const char* key = "convrot_groupsize";
  if (marker.contains(key)) return positive_integer(marker, key, base);
  const auto params = marker.find("params");
  if (params != marker.end() && params->is_object() && params->contains(key)) return positive_integer(*params, key, base);
  return kUnnamedGroup;
}

}  // namespace

const FormatInfo& W4a4Format::info() const {
  static const FormatInfo info = {"int4", {kRotated, "w4a4"}, "4-bit integers with an F32 scale per row, rotated", true, false, "int8"};
  return info;
}

std::vector<Scaling> W4a4Format::scalings(std::string_view) const { return {Scaling::row}; }

bool W4a4Format::can_rotate(Scaling scaling) const { return scaling == Scaling::row; }

Layout W4a4Format::layout(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_matrix(info(), weight);
  require_expressible(info(), wanted);
  const std::int64_t columns = weight.shape[1];
  if (const std::int64_t divisor = missing_divisor(columns, wanted.rotation); divisor != 0)
    throw Error(ErrorKind::unsupported,
                fmt::format("int4 needs columns that {} divides; '{}' is {}", divisor, weight.name, weight.shape_text()));
  Layout layout;
  layout.tile_columns = columns;
  layout.rotation_group = rotation_group(columns, wanted.rotation);
  const auto data = std::make_shared<W4a4Data>();
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  layout.data = data;
  return layout;
}

std::string W4a4Format::misfit(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_expressible(info(), wanted);
  if (!is_matrix(weight)) return {};
  const std::int64_t columns = weight.shape[1];
  const std::int64_t divisor = missing_divisor(columns, wanted.rotation);
  return divisor == 0 ? std::string() : fmt::format("{} does not divide its {} columns", divisor, columns);
}

FormatLabel W4a4Format::label(const Layout& layout) const {
  FormatLabel label;
  const bool is_rotated = layout.rotation_group != 0;
  label.name = is_rotated ? kRotated : kUnrotated;
  label.summary = is_rotated ? fmt::format("int4 row, rotated {}", layout.rotation_group) : "int4 row";
  nlohmann::ordered_json marker = {{"format", label.name}};
  if (layout.rotation_group != 0) marker["convrot_groupsize"] = layout.rotation_group;
  if (data_of<W4a4Data>(layout).full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
  return label;
}

std::vector<TensorInfo> W4a4Format::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = layer_base(weight.name);
  return {{weight.name, DType::i8, {weight.shape[0], weight.shape[1] / 2}},
          // One dimension, unlike int8: the readers' kernels take [N].
          {base + ".weight_scale", DType::f32, {weight.shape[0]}},
          {base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}}};
}

const Grid& W4a4Format::grid() const {
  static const Grid grid = {-7, 7, {}};  // -8 has no opposite, and readers' own writers leave it out
  return grid;
}

std::vector<StoredTensor> W4a4Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  at::Tensor packed = at::empty(infos[0].shape, at::kChar);
  // K is even, so that pairs do not cross rows.
  pack_nibbles(coded.codes.const_data_ptr<std::int8_t>(), packed.numel(), packed.mutable_data_ptr<std::int8_t>());
  return {{infos[0].name, packed}, {infos[1].name, coded.scales.view(infos[1].shape)}, marker_tensor(infos[2].name, label(layout).marker)};
}

std::optional<Layout> W4a4Format::recognise(const StoredLayerInfo& layer) const {
  if (layer.marker.empty()) return std::nullopt;
  const nlohmann::json marker = parse_marker(layer.marker);
  const std::string format = marked_format(marker);
  if (format != kRotated && format != kUnrotated) return std::nullopt;

  const TensorInfo& weight = layer.weight;
  const bool has_values = weight.shape.size() == 2 && weight.shape[0] > 0 && weight.shape[1] > 0;
  if (weight.dtype != DType::i8 || !has_values || weight.shape[1] > std::numeric_limits<std::int64_t>::max() / 2)
    throw Error(ErrorKind::input, fmt::format("layer '{}' is marked {} and has a weight {} {}, expected I8 [N,K/2]", layer.base, format,
                                              dtype_name(weight.dtype), weight.shape_text()));
  const std::int64_t rows = weight.shape[0];
  const TensorInfo* scale = find_other(layer, "weight_scale");
  if (scale == nullptr || scale->dtype != DType::f32 || scale->shape != std::vector<std::int64_t>{rows})
    throw Error(ErrorKind::input,
                fmt::format("layer '{}' has {} for its scale, expected F32 '{}.weight_scale' of {} values in one dimension", layer.base,
                            scale == nullptr ? "no tensor" : fmt::format("{} {}", dtype_name(scale->dtype), scale->shape_text()),
                            layer.base, rows));
  Layout layout;
  layout.tile_columns = 2 * weight.shape[1];
  const auto data = std::make_shared<W4a4Data>();
  data->full_precision_matrix_mult = says_true(marker, "full_precision_matrix_mult");
  layout.data = data;
  if (format == kUnrotated) return layout;
  layout.rotation_group = marked_group(marker, layer.base);
  if (!is_rotation_group(layout.rotation_group) || layout.tile_columns % layout.rotation_group != 0)
    throw Error(ErrorKind::input,
                fmt::format("layer '{}' says it is rotated in groups of {}, expected a power of 4 that divides its {} columns", layer.base,
                            layout.rotation_group, layout.tile_columns));
  if (layout.tile_columns % kReaderStep != 0)
    throw Error(ErrorKind::input, fmt::format("layer '{}' is marked {} and has {} columns, expected a multiple of {}", layer.base, format,
                                              layout.tile_columns, kReaderStep));
  return layout;
}

TensorInfo W4a4Format::original(const StoredLayerInfo& layer, const Layout& layout) const {
  return {layer.weight.name, layer.weight.dtype, {layer.weight.shape[0], layout.tile_columns}};
}

void W4a4Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                             float* out) const {
  const std::int64_t pairs = tensors[0].size(1);
  const std::int64_t columns = 2 * pairs;
  const auto* packed = tensors[0].const_data_ptr<std::int8_t>();
  const auto* scales = tensors[1].const_data_ptr<float>();
  thread_local std::vector<std::int8_t> codes;
  codes.resize(static_cast<std::size_t>(columns));
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    unpack_nibbles(packed + row * pairs, pairs, codes.data());
    scale_codes(codes.data(), columns, scales[row], out);
    if (layout.rotation_group != 0) rotate_groups(out, columns, layout.rotation_group);
  }
}

}  // namespace qmill
