#include "fp8_format.h"

#include "marker.h"
#include "small_floats.h"
#include "writing_rules.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qmill {
namespace {

struct Fp8Data final : FormatData {
  bool is_marked = true;
  std::string scale_suffix = "weight_scale";
  bool full_precision_matrix_mult = false;

  std::string text() const override {
    return fmt::format("{}{}{}", scale_suffix, is_marked ? "" : ", not marked", full_precision_matrix_mult ? ", full precision" : "");
  }
};

// As writers name it. "inv" is the inverse of what the weight was multiplied by: decoding multiplies by it, as by the others.
constexpr std::string_view kScaleSuffixes[] = {"weight_scale", "scale_weight", "weight_scale_inv"};

// Of blocks whose last ones are cut short, as DeepSeek stores them.
constexpr std::int64_t kUsualBlock = 128;

constexpr std::string_view kExpectedScale = "F32, BF16 or F16 with one value, one per row or one per block";

bool is_scale_type(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

std::string file_name(DType dtype) { return dtype == DType::f8_e4m3 ? "float8_e4m3fn" : "float8_e5m2"; }

std::vector<std::string> aliases(DType dtype) {
  return dtype == DType::f8_e4m3 ? std::vector<std::string>{"fp8", "float8_e4m3"} : std::vector<std::string>{};
}

std::string summary(DType dtype) {
  return fmt::format("8-bit floats ({}) with one F32 scale", dtype == DType::f8_e4m3 ? "E4M3, up to 448" : "E5M2, up to 57344");
}

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

std::int64_t parts(std::int64_t size, std::int64_t step) { return (size + step - 1) / step; }

// [N], [N,1], [N,1,1,1]
bool is_per_row(const std::vector<std::int64_t>& shape, std::int64_t rows) {
  return !shape.empty() && shape[0] == rows && std::all_of(shape.begin() + 1, shape.end(), [](std::int64_t size) { return size == 1; });
}

// False: the scale fits the weight in no way that is known.
bool set_tile(Layout& layout, const TensorInfo& weight, const std::vector<std::int64_t>& scale, std::int64_t scales) {
  const std::int64_t rows = weight.shape[0];
  const std::int64_t columns = columns_of(weight.shape);
  if (scales == 1) {
    set_tile(layout, Scaling::tensor, rows, columns);
  } else if (is_per_row(scale, rows)) {
    set_tile(layout, Scaling::row, 1, columns);
  } else if (scale.size() != 2 || weight.shape.size() != 2 || scale[0] == 0 || scale[1] == 0) {
    return false;
  } else if (scale[0] == parts(rows, kUsualBlock) && scale[1] == parts(columns, kUsualBlock)) {
    set_tile(layout, Scaling::block, kUsualBlock, kUsualBlock);
  } else if (rows % scale[0] == 0 && columns % scale[1] == 0) {
    set_tile(layout, Scaling::block, rows / scale[0], columns / scale[1]);
  } else {
    return false;
  }
  return true;
}

void require_positive(const std::vector<float>& scales, std::string_view suffix, std::int64_t row) {
  for (const float scale : scales)
    if (!std::isfinite(scale) || scale <= 0)
      throw Error(ErrorKind::numeric, fmt::format("its '{}' is {} for row {}, expected a positive number", suffix, scale, row),
                  "the file is damaged; get it again, or use the original model");
}

}  // namespace

Fp8Format::Fp8Format(DType dtype)
    : info_{file_name(dtype), aliases(dtype), summary(dtype), true}, dtype_(dtype), grid_(float8_grid(dtype)) {
  std::array<std::uint8_t, 256> codes;
  std::iota(codes.begin(), codes.end(), std::uint8_t{0});
  load_f32(codes.data(), dtype, codes.size(), values_.data());
}

std::vector<Scaling> Fp8Format::scalings(std::string_view) const { return {Scaling::tensor}; }

Layout Fp8Format::layout(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_matrix(info(), weight);
  require_wishes(info(), wanted, Scaling::tensor);
  require_no_rotation(info(), wanted);
  Layout layout;
  set_tile(layout, Scaling::tensor, weight.shape[0], weight.shape[1]);
  const auto data = std::make_shared<Fp8Data>();
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  layout.data = data;
  return layout;
}

std::vector<StoredTensor> Fp8Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  at::Tensor bits = at::empty(infos[0].shape, at::kByte);
  const auto* codes = coded.codes.const_data_ptr<std::int8_t>();
  auto* out = bits.mutable_data_ptr<std::uint8_t>();
  const std::int64_t count = bits.numel();
  for (std::int64_t i = 0; i < count; ++i) out[i] = sign_magnitude<8>(codes[i]);
  return {{infos[0].name, bits.view(dtype_ == DType::f8_e4m3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2)},
          {infos[1].name, coded.scales.view(infos[1].shape)},
          marker_tensor(infos[2].name, label(layout).marker)};
}

FormatLabel Fp8Format::label(const Layout& layout) const {
  FormatLabel label;
  label.name = info().name;
  label.summary = fmt::format("{} {}", label.name, scaling_name(layout.scaling));
  const auto& data = data_of<Fp8Data>(layout);
  if (!data.is_marked && data.scale_suffix == "scale_weight") return label;
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
  if (layout.scaling == Scaling::block) scales = {parts(rows, layout.tile_rows), parts(columns_of(weight.shape), layout.tile_columns)};
  std::vector<TensorInfo> outputs = {{weight.name, dtype_, weight.shape}};
  const auto& data = data_of<Fp8Data>(layout);
  outputs.push_back({fmt::format("{}.{}", base, data.scale_suffix), DType::f32, scales});
  if (const std::string marker = label(layout).marker; !marker.empty())
    outputs.push_back({base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(marker.size())}});
  return outputs;
}

std::optional<Layout> Fp8Format::recognise(const StoredLayerInfo& layer) const {
  const TensorInfo& weight = layer.weight;
  Layout layout;
  const auto data = std::make_shared<Fp8Data>();
  layout.data = data;
  data->is_marked = !layer.marker.empty();
  if (data->is_marked) {
    const nlohmann::json marker = parse_marker(layer.marker);
    if (marked_format(marker) != info().name) return std::nullopt;
    if (weight.dtype != dtype_) throw contradiction(info(), layer, weight.name, &weight, dtype_name(dtype_));
    data->full_precision_matrix_mult = says_true(marker, "full_precision_matrix_mult");
  }
  if (weight.dtype != dtype_ || weight.shape.empty()) return std::nullopt;

  const TensorInfo* scale = nullptr;
  for (const std::string_view suffix : kScaleSuffixes) {
    if (scale != nullptr || (data->is_marked && suffix != data->scale_suffix)) continue;
    scale = find_other(layer, suffix);
    if (scale != nullptr) data->scale_suffix = suffix;
  }
  if (scale != nullptr && is_scale_type(scale->dtype) && set_tile(layout, weight, scale->shape, scale->elements())) return layout;
  if (data->is_marked) throw contradiction(info(), layer, layer.base + ".weight_scale", scale, kExpectedScale);
  return std::nullopt;  // plain values, or somebody else's
}

void Fp8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                            float* out) const {
  const std::int64_t rows = tensors[0].size(0);
  const std::int64_t columns = rows == 0 ? 0 : tensors[0].numel() / rows;
  const std::int64_t tiles = parts(columns, layout.tile_columns);
  const auto* codes = static_cast<const std::uint8_t*>(tensors[0].const_data_ptr()) + begin * columns;
  const auto scale_type = info_of({"", tensors[1]}).dtype;
  const auto* scales = static_cast<const std::byte*>(tensors[1].const_data_ptr());
  std::vector<float> row_scales(static_cast<std::size_t>(tiles));
  std::int64_t loaded = -1;  // the row of scales
  for (std::int64_t row = begin; row < end; ++row, out += columns, codes += columns) {
    if (const std::int64_t wanted = row / layout.tile_rows; wanted != loaded) {
      load_f32(scales + wanted * tiles * dtype_bits(scale_type) / 8, scale_type, tiles, row_scales.data());
      require_positive(row_scales, data_of<Fp8Data>(layout).scale_suffix, row);
      loaded = wanted;
    }
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t last = std::min(columns, (tile + 1) * layout.tile_columns);
      const float scale = row_scales[static_cast<std::size_t>(tile)];
      for (std::int64_t i = tile * layout.tile_columns; i < last; ++i) out[i] = values_[codes[i]] * scale;
    }
  }
}

}  // namespace qmill
