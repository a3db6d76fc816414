#include "fp8_format.h"

#include "marker.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace qmill {
namespace {

struct Fp8Data final : FormatData {
  Naming naming = Naming::comfy;
  bool full_precision_matrix_mult = false;

  std::string text() const override {
    return fmt::format("{}{}", naming == Naming::legacy ? "legacy " : "", full_precision_matrix_mult ? "full precision" : "");
  }
};

std::string file_name(DType dtype) { return dtype == DType::f8_e4m3 ? "float8_e4m3fn" : "float8_e5m2"; }

// The second dimension is all but the first: convolutions are matrices here.
std::int64_t columns_of(const std::vector<std::int64_t>& shape) {
  std::int64_t columns = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) columns *= shape[i];
  return columns;
}

void set_tile(Layout& layout, Scaling scaling, std::int64_t rows, std::int64_t columns) {
  layout.scaling = scaling;
  layout.tile_rows = std::max<std::int64_t>(rows, 1);
  layout.tile_columns = std::max<std::int64_t>(columns, 1);
}

}  // namespace

Fp8Format::Fp8Format(DType dtype)
    : info_{file_name(dtype), {}, "8-bit floats with F32 scales; read only", true, true}, dtype_(dtype) {
  std::array<std::uint8_t, 256> codes;
  std::iota(codes.begin(), codes.end(), std::uint8_t{0});
  load_f32(codes.data(), dtype, codes.size(), values_.data());
}

FormatLabel Fp8Format::label(const Layout& layout) const {
  FormatLabel label;
  label.name = info().name;
  label.summary = fmt::format("{} {}", label.name, scaling_name(layout.scaling));
  const auto& data = data_of<Fp8Data>(layout);
  if (data.naming == Naming::legacy) return label;
  nlohmann::ordered_json marker = {{"format", label.name}};
  if (data.full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
  return label;
}

std::vector<TensorInfo> Fp8Format::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = layer_base(weight.name);
  const std::int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
  std::vector<std::int64_t> scales;
  if (layout.scaling == Scaling::row) scales = {rows, 1};
  if (layout.scaling == Scaling::block) scales = {rows / layout.tile_rows, columns_of(weight.shape) / layout.tile_columns};
  std::vector<TensorInfo> outputs = {{weight.name, dtype_, weight.shape}};
  const bool is_marked = data_of<Fp8Data>(layout).naming == Naming::comfy;
  outputs.push_back({base + (is_marked ? ".weight_scale" : ".scale_weight"), DType::f32, scales});
  if (is_marked)
    outputs.push_back({base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}});
  return outputs;
}

std::optional<Layout> Fp8Format::recognise(const StoredLayerInfo& layer) const {
  const TensorInfo& weight = layer.weight;
  const bool is_marked = !layer.marker.empty();
  Layout layout;
  const auto data = std::make_shared<Fp8Data>();
  layout.data = data;
  if (is_marked) {
    const nlohmann::json marker = parse_marker(layer.marker);
    if (marked_format(marker) != info().name) return std::nullopt;
    if (weight.dtype != dtype_) throw contradiction(info(), layer, weight.name, &weight, dtype_name(dtype_));
    data->full_precision_matrix_mult = says_true(marker, "full_precision_matrix_mult");
  }
  if (weight.dtype != dtype_ || weight.shape.empty()) return std::nullopt;

  const TensorInfo* scale = find_other(layer, "weight_scale");
  if (scale == nullptr && !is_marked) {
    scale = find_other(layer, "scale_weight");
    data->naming = Naming::legacy;
  }
  if (scale == nullptr || scale->dtype != DType::f32) {
    if (is_marked) throw contradiction(info(), layer, layer.base + ".weight_scale", scale, "F32 with one value");
    return std::nullopt;  // plain values, or somebody else's
  }
  const std::int64_t rows = weight.shape[0];
  const std::int64_t columns = columns_of(weight.shape);
  const std::vector<std::int64_t>& shape = scale->shape;
  if (scale->elements() == 1) {
    set_tile(layout, Scaling::tensor, rows, columns);
  } else if (is_marked) {
    throw contradiction(info(), layer, scale->name, scale, "F32 with one value");
  } else if (shape == std::vector<std::int64_t>{rows} || shape == std::vector<std::int64_t>{rows, 1}) {
    set_tile(layout, Scaling::row, 1, columns);
  } else if (shape.size() == 2 && weight.shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && rows % shape[0] == 0 &&
             columns % shape[1] == 0) {
    set_tile(layout, Scaling::block, rows / shape[0], columns / shape[1]);
  } else {
    return std::nullopt;
  }
  return layout;
}

void Fp8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                            float* out) const {
  const std::int64_t rows = tensors[0].size(0);
  const std::int64_t columns = rows == 0 ? 0 : tensors[0].numel() / rows;
  const std::int64_t tiles = (columns + layout.tile_columns - 1) / layout.tile_columns;
  const auto* codes = static_cast<const std::uint8_t*>(tensors[0].const_data_ptr()) + begin * columns;
  const auto* scales = tensors[1].const_data_ptr<float>();
  for (std::int64_t row = begin; row < end; ++row, out += columns, codes += columns) {
    const float* row_scales = scales + row / layout.tile_rows * tiles;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t last = std::min(columns, (tile + 1) * layout.tile_columns);
      const float scale = row_scales[tile];
      for (std::int64_t i = tile * layout.tile_columns; i < last; ++i) out[i] = values_[codes[i]] * scale;
    }
  }
}

}  // namespace qmill
