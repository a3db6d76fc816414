#include "int8_format.h"

#include "marker.h"
#include "writing_rules.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kTensorwise = "int8_tensorwise";
constexpr const char* kBlockwise = "int8_blockwise";
constexpr const char* kAxiswise = "int8_axiswise";

constexpr std::int64_t kBlockSize = 128;

struct Int8Data final : FormatData {
  Naming naming = Naming::comfy;
  bool full_precision_matrix_mult = false;
  bool has_input_scale = false;
  float input_scale = 1;
  bool vector_scale = false;

  std::string text() const override {
    std::string text = naming == Naming::comfy ? "comfy" : "legacy";
    if (full_precision_matrix_mult) text += " full precision";
    if (has_input_scale) text += fmt::format(" input {}", input_scale);
    if (vector_scale) text += " vector";
    return text;
  }
};

std::string_view file_name(Scaling scaling) {
  switch (scaling) {
    case Scaling::block:
      return kBlockwise;
    case Scaling::axis:
      return kAxiswise;
    case Scaling::row:
    case Scaling::tensor:
      break;
  }
  return kTensorwise;
}

// Of one value.
std::vector<std::int64_t> single_shape(const Layout& layout) {
  return data_of<Int8Data>(layout).vector_scale ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{};
}

std::vector<std::int64_t> scale_shape(const TensorInfo& weight, const Layout& layout) {
  const std::int64_t n = weight.shape[0];
  const std::int64_t k = weight.shape[1];
  switch (layout.scaling) {
    case Scaling::tensor:
      return single_shape(layout);
    case Scaling::axis:
      return {n};
    case Scaling::block:
      return {n / layout.tile_rows, k / layout.tile_columns};
    case Scaling::row:
      break;
  }
  // Two dimensions: readers broadcast [N] along the columns when they decode.
  return {n, 1};
}

std::int64_t rotation_group(const Rotation& rotation, std::int64_t columns) {
  const auto divides = [&](std::int64_t group) { return columns % group == 0; };
  switch (rotation.mode) {
    case Rotation::Mode::off:
      return 0;
    case Rotation::Mode::automatic:
      return divides(256) ? 256 : 0;
    case Rotation::Mode::fixed:
      return divides(rotation.group) ? rotation.group : 0;
    case Rotation::Mode::any:
      for (const std::int64_t group : {256, 64, 16})
        if (divides(group)) return group;
  }
  return 0;
}

std::string divisors(const Rotation& rotation) {
  switch (rotation.mode) {
    case Rotation::Mode::any:
      return "16";
    case Rotation::Mode::fixed:
      return std::to_string(rotation.group);
    case Rotation::Mode::automatic:
    case Rotation::Mode::off:
      break;
  }
  return "256";
}

void set_tile(Layout& layout, std::int64_t rows, std::int64_t columns) {
  // A tile is never empty, so that nothing divides by zero for a weight without rows or columns.
  layout.tile_rows = std::max<std::int64_t>(rows, 1);
  layout.tile_columns = std::max<std::int64_t>(columns, 1);
}

}  // namespace

const FormatInfo& Int8Format::info() const {
  static const FormatInfo info = {
      "int8", {kTensorwise, kBlockwise, kAxiswise}, "8-bit integers with F32 scales per row, tensor, block or axis", true};
  return info;
}

std::vector<Scaling> Int8Format::scalings(std::string_view name) const {
  if (same_name(name, kTensorwise)) return {Scaling::row, Scaling::tensor};
  if (same_name(name, kBlockwise)) return {Scaling::block};
  if (same_name(name, kAxiswise)) return {Scaling::axis};
  return {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis};
}

bool Int8Format::can_rotate(Scaling scaling) const { return scaling == Scaling::row; }

Layout Int8Format::layout(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_matrix(info(), weight);
  const Scaling scaling = wanted.scaling.value_or(Scaling::row);
  const std::int64_t block_size = wanted.block_size.value_or(kBlockSize);
  if (scaling == Scaling::block && block_size < 1)
    throw Error(ErrorKind::usage, fmt::format("the block size is {}; allowed: an integer of at least 1", block_size));
  if (wanted.vector_scale && wanted.naming == Naming::comfy)
    throw Error(ErrorKind::usage,
                "a single scale of one dimension is for legacy names: ComfyUI takes it for one per row once a LoRA is applied",
                "use `normalize_scales on`, or `comfy_quant off`");
  if (wanted.rotation.mode == Rotation::Mode::fixed) parse_rotation(rotation_text(wanted.rotation));
  const bool rotates = can_rotate(scaling) && wanted.naming == Naming::comfy;
  if (wanted.rotation.must_rotate() && !rotates)
    throw Error(
        ErrorKind::usage,
        fmt::format("rotation '{}' needs row scaling and ComfyUI names; found {} scaling and {} names", rotation_text(wanted.rotation),
                    scaling_name(scaling), wanted.naming == Naming::comfy ? "ComfyUI" : "legacy"),
        "use `scaling_mode row` and `comfy_quant on`, or `convrot off`");

  const std::int64_t n = weight.shape[0];
  const std::int64_t k = weight.shape[1];
  Layout layout;
  layout.scaling = scaling;
  const auto data = std::make_shared<Int8Data>();
  data->naming = wanted.naming;
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  data->has_input_scale = wanted.legacy_input_scale && wanted.naming == Naming::legacy;
  if (data->has_input_scale) data->input_scale = wanted.input_scale;
  data->vector_scale = wanted.vector_scale;
  layout.data = data;
  set_tile(layout, 1, k);
  if (scaling == Scaling::tensor) set_tile(layout, n, k);
  if (scaling == Scaling::block) {
    if (n % block_size == 0 && k % block_size == 0) {
      set_tile(layout, block_size, block_size);
    } else {
      layout.scaling = Scaling::row;
      layout.note = fmt::format("blocks of {} do not divide its shape: per row", block_size);
    }
  }
  if (rotates) {
    layout.rotation_group = rotation_group(wanted.rotation, k);
    if (layout.rotation_group == 0 && wanted.rotation.mode != Rotation::Mode::off)
      layout.note = fmt::format("{} does not divide its {} columns: not rotated", divisors(wanted.rotation), k);
  }
  return layout;
}

FormatLabel Int8Format::label(const Layout& layout) const {
  FormatLabel label;
  label.name = file_name(layout.scaling);
  label.summary = fmt::format("int8 {}", scaling_name(layout.scaling));
  if (layout.scaling == Scaling::block) label.summary += fmt::format(" {}", layout.tile_rows);
  if (layout.rotation_group != 0) label.summary += fmt::format(", rotated {}", layout.rotation_group);
  const auto& data = data_of<Int8Data>(layout);
  if (data.naming == Naming::legacy) return label;

  nlohmann::ordered_json marker = {{"format", label.name}};
  if (layout.scaling == Scaling::block) marker["group_size"] = layout.tile_columns;
  if (layout.rotation_group != 0) {
    marker["convrot"] = true;
    marker["convrot_groupsize"] = layout.rotation_group;
  }
  if (data.full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
  return label;
}

std::vector<TensorInfo> Int8Format::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = layer_base(weight.name);
  std::vector<TensorInfo> outputs = {{weight.name, DType::i8, weight.shape}};
  const std::vector<std::int64_t> scales = scale_shape(weight, layout);
  const auto& data = data_of<Int8Data>(layout);
  if (data.naming == Naming::comfy) {
    outputs.push_back({base + ".weight_scale", DType::f32, scales});
    outputs.push_back({base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}});
  } else {
    outputs.push_back({base + ".scale_weight", DType::f32, scales});
    if (data.has_input_scale) outputs.push_back({base + ".scale_input", DType::f32, single_shape(layout)});
  }
  return outputs;
}

const Grid& Int8Format::grid() const {
  static const Grid grid;
  return grid;
}

std::vector<StoredTensor> Int8Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  std::vector<StoredTensor> stored = {{infos[0].name, coded.codes}, {infos[1].name, coded.scales.view(infos[1].shape)}};
  const auto& data = data_of<Int8Data>(layout);
  if (data.naming == Naming::comfy) {
    stored.push_back(marker_tensor(infos[2].name, label(layout).marker));
  } else if (data.has_input_scale) {
    stored.push_back({infos[2].name, at::full(infos[2].shape, data.input_scale, at::kFloat)});
  }
  return stored;
}

std::optional<Layout> Int8Format::recognise(const StoredLayerInfo& layer) const {
  if (layer.weight.dtype != DType::i8 || layer.weight.shape.size() != 2) return std::nullopt;
  Layout layout;
  const auto data = std::make_shared<Int8Data>();
  layout.data = data;
  data->naming = layer.marker.empty() ? Naming::legacy : Naming::comfy;
  const char* const scale_suffix = data->naming == Naming::comfy ? "weight_scale" : "scale_weight";
  const TensorInfo* scale = find_other(layer, scale_suffix);
  data->has_input_scale = data->naming == Naming::legacy && find_other(layer, "scale_input") != nullptr;
  const nlohmann::json marker = data->naming == Naming::comfy ? parse_marker(layer.marker) : nlohmann::json::object();
  const std::string format = marked_format(marker);
  if (data->naming == Naming::comfy) {
    if (format.empty())
      throw Error(ErrorKind::input, fmt::format("the marker of layer '{}' is not a JSON object with a 'format'", layer.base));
    if (format != kTensorwise && format != kBlockwise && format != kAxiswise) return std::nullopt;
  } else if (scale == nullptr) {
    return std::nullopt;  // plain integers
  }
  const auto contradiction = [&](std::string_view expected) {
    return Error(
        ErrorKind::input,
        fmt::format("layer '{}' has {} for its scale, expected {}", layer.base,
                    scale == nullptr ? "no tensor" : fmt::format("{} {}", dtype_name(scale->dtype), scale->shape_text()), expected));
  };
  if (scale == nullptr || scale->dtype != DType::f32) throw contradiction(fmt::format("F32 '{}.{}'", layer.base, scale_suffix));

  const std::int64_t n = layer.weight.shape[0];
  const std::int64_t k = layer.weight.shape[1];
  const std::vector<std::int64_t>& shape = scale->shape;
  if (scale->elements() == 1 && shape.size() < 2 && format != kBlockwise && format != kAxiswise) {
    layout.scaling = Scaling::tensor;
    data->vector_scale = shape.size() == 1;
    set_tile(layout, n, k);
  } else if (shape == std::vector<std::int64_t>{n, 1} && format != kBlockwise) {
    layout.scaling = Scaling::row;
    set_tile(layout, 1, k);
  } else if (shape == std::vector<std::int64_t>{n}) {
    layout.scaling = Scaling::axis;
    set_tile(layout, 1, k);
  } else if (shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && n % shape[0] == 0 && k % shape[1] == 0) {
    layout.scaling = Scaling::block;
    set_tile(layout, n / shape[0], k / shape[1]);
  } else {
    throw contradiction(fmt::format("one value, {} values or one per block of {}", n, layer.weight.shape_text()));
  }
  if (data->naming == Naming::comfy && format != file_name(layout.scaling)) throw contradiction(fmt::format("the scale of {}", format));
  if (layout.scaling == Scaling::block && data->naming == Naming::comfy &&
      (positive_integer(marker, "group_size", layer.base) != layout.tile_columns || layout.tile_rows != layout.tile_columns))
    throw contradiction(fmt::format("one value per block of {}", marker["group_size"].get<std::int64_t>()));
  data->full_precision_matrix_mult = says_true(marker, "full_precision_matrix_mult");
  if (const nlohmann::json& rotation = rotation_fields(marker); says_true(rotation, "convrot")) {
    layout.rotation_group = positive_integer(rotation, "convrot_groupsize", layer.base);
    if (!is_rotation_group(layout.rotation_group) || k % layout.rotation_group != 0 || layout.scaling != Scaling::row)
      throw Error(ErrorKind::input,
                  fmt::format("layer '{}' says it is rotated in groups of {}, which its shape {} or its scale does not allow", layer.base,
                              layout.rotation_group, layer.weight.shape_text()));
  }
  return layout;
}

void Int8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                             float* out) const {
  const std::int64_t columns = tensors[0].size(1);
  const std::int64_t tiles = (columns + layout.tile_columns - 1) / layout.tile_columns;
  const auto* codes = tensors[0].const_data_ptr<std::int8_t>();
  const auto* scales = tensors[1].const_data_ptr<float>();
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    const float* row_scales = scales + row / layout.tile_rows * tiles;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t first = tile * layout.tile_columns;
      scale_codes(codes + row * columns + first, std::min(layout.tile_columns, columns - first), row_scales[tile], out + first);
    }
    if (layout.rotation_group != 0) rotate_groups(out, columns, layout.rotation_group);
  }
}

}  // namespace qmill
