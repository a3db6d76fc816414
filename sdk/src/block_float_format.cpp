#include "block_float_format.h"

#include "marker.h"
#include "small_floats.h"
#include "writing_rules.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

constexpr std::int64_t kScaleRows = 128;
constexpr std::int64_t kScaleColumns = 4;

constexpr const char* kOriginalShape = "orig_shape";  // a key of ours: readers ignore it

// Which part of the padded matrix is the weight.
struct PaddedData final : FormatData {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  bool is_padded = false;
  bool full_precision_matrix_mult = false;
  bool has_input_factors = false;  // "pre_quant_scale": readers multiply inputs by it

  std::string text() const override {
    return fmt::format("{}x{}{}{}", rows, columns, full_precision_matrix_mult ? " full precision" : "", has_input_factors ? " factors" : "");
  }
};

std::int64_t rounded_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// One scale of the tensor, F32, times E4M3 per block. (As comfy-kitchen computes them.)
class TensorTimesE4m3 final : public ScaleGrid {
 public:
  at::Tensor common(const at::Tensor& peaks) const override {
    constexpr float kLargest = 448.0f * 6.0f;
    return peaks.max().div(kLargest).clamp_min(kSmallestTensorScale);
  }
  at::Tensor stored(const at::Tensor& wished, const at::Tensor& common) const override {
    const at::Tensor scales = at::empty_like(wished);
    const at::Tensor in = wished.contiguous();
    const float tensor_scale = *common.const_data_ptr<float>();
    const auto* from = in.const_data_ptr<float>();
    auto* to = scales.mutable_data_ptr<float>();
    const std::int64_t count = in.numel();
    for (std::int64_t i = 0; i < count; ++i) to[i] = times_e4m3(tensor_scale, from[i]);
    return scales;
  }

 private:
  static constexpr double kSmallestTensorScale = 1e-30;
};

// Powers of two, none below what is wished for: 2^e with e from -126 to 127. The exponent is taken from the bits, which a logarithm may miss.
class PowersOfTwo final : public ScaleGrid {
 public:
  at::Tensor stored(const at::Tensor& wished, const at::Tensor&) const override {
    const at::Tensor scales = at::empty_like(wished);
    const at::Tensor in = wished.contiguous();
    const auto* from = in.const_data_ptr<float>();
    auto* to = scales.mutable_data_ptr<float>();
    constexpr std::int32_t kMantissa = 0x7fffff, kOne = 0x800000;  // of a float's bits; wished scales are normal numbers
    const std::int64_t count = in.numel();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int32_t up = (std::bit_cast<std::int32_t>(from[i]) + kMantissa) & ~kMantissa;
      to[i] = std::bit_cast<float>(std::clamp(up, kOne, 254 * kOne));
    }
    return scales;
  }
};

Grid with_scales(Grid grid, const ScaleGrid& scales) {
  grid.scale_grid = &scales;
  return grid;
}

const ScaleGrid& tensor_times_e4m3() {
  static const TensorTimesE4m3 grid;
  return grid;
}

const ScaleGrid& powers_of_two() {
  static const PowersOfTwo grid;
  return grid;
}

// High nibble: even column.
void pack_pairs(const std::int8_t* codes, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t i = 0; i < count / 2; ++i)
    out[i] = static_cast<std::uint8_t>(sign_magnitude<4>(codes[2 * i]) << 4 | sign_magnitude<4>(codes[2 * i + 1]));
  if (count % 2 != 0) out[count / 2] = static_cast<std::uint8_t>(sign_magnitude<4>(codes[count - 1]) << 4);
}

bool are_zero(const std::int8_t* codes, std::int64_t count) {
  int any = 0;
  for (std::int64_t i = 0; i < count; ++i) any |= codes[i];
  return any == 0;
}

// [N, K] as our marker says it, of a weight that is stored as [rows, columns].
void read_original_shape(const nlohmann::json& marker, std::string_view base, std::int64_t padding, PaddedData& data) {
  const auto shape = marker.find(kOriginalShape);
  if (shape == marker.end()) return;
  const auto side = [&](std::size_t i, std::int64_t stored) -> std::int64_t {
    if (!shape->is_array() || shape->size() != 2 || !(*shape)[i].is_number_integer()) return 0;
    const auto size = (*shape)[i].get<std::int64_t>();
    return size > stored - padding && size <= stored ? size : 0;
  };
  const std::int64_t rows = side(0, data.rows), columns = side(1, data.columns);
  if (rows < 1 || columns < 1)
    throw Error(ErrorKind::input, fmt::format("the marker of layer '{}' has '{}' {}, expected [N,K] that {} x {} is padded from", base,
                                              kOriginalShape, shape->dump().substr(0, 40), data.rows, data.columns));
  data.rows = rows;
  data.columns = columns;
  data.is_padded = true;
}

}  // namespace

std::int64_t swizzled_scale(std::int64_t row, std::int64_t block, std::int64_t stored_blocks) {
  const std::int64_t tile = row / kScaleRows * (stored_blocks / kScaleColumns) + block / kScaleColumns;
  return tile * (kScaleRows * kScaleColumns) + row % 32 * 16 + row % kScaleRows / 32 * 4 + block % kScaleColumns;
}

BlockFloatFormat::BlockFloatFormat(FormatInfo info, DType code, int codes_per_byte, std::int64_t block, std::int64_t padding, Grid grid)
    : block_(block), info_(std::move(info)), code_(code), codes_per_byte_(codes_per_byte), padding_(padding), grid_(std::move(grid)) {}

std::vector<Scaling> BlockFloatFormat::scalings(std::string_view) const { return {Scaling::block}; }

void BlockFloatFormat::require_expressible(const StorageOptions& wanted) const {
  require_wishes(info(), wanted, Scaling::block);
  require_no_rotation(info(), wanted);
  if (wanted.scaling && wanted.block_size.value_or(block_) != block_)
    throw Error(ErrorKind::usage, fmt::format("{} has blocks of {} columns; found a block size of {}", info().name, block_, *wanted.block_size),
                "leave it out");
}

std::string BlockFloatFormat::misfit(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_expressible(wanted);
  if (!is_matrix(weight)) return {};
  const std::int64_t rows = weight.shape[0];
  if (const std::string_view trouble = trouble_with_padded_rows(); rows % padding_ != 0 && !trouble.empty())
    return fmt::format("{} does not divide its {} rows: {}", padding_, rows, trouble);
  // What stands in takes a byte per value; blocks of 8-bit floats take 1/32 more of their own.
  std::int64_t bytes = 0;
  for (const TensorInfo& tensor : outputs(weight, layout(weight, wanted)))
    if (!tensor.name.ends_with(".comfy_quant")) bytes += tensor.bytes();
  const bool is_wasteful = codes_per_byte_ == 1 ? bytes > 2 * weight.elements() : bytes >= weight.elements();
  return is_wasteful ? fmt::format("padded, its {} values would take {} bytes", weight.elements(), bytes) : std::string();
}

Layout BlockFloatFormat::layout(const TensorInfo& weight, const StorageOptions& wanted) const {
  require_matrix(info(), weight);
  require_expressible(wanted);
  Layout layout;
  layout.scaling = Scaling::block;
  layout.tile_columns = block_;
  const auto data = std::make_shared<PaddedData>();
  data->rows = weight.shape[0];
  data->columns = weight.shape[1];
  data->is_padded = data->rows % padding_ != 0 || data->columns % padding_ != 0;
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  layout.data = data;
  return layout;
}

FormatLabel BlockFloatFormat::label(const Layout& layout) const {
  FormatLabel label;
  label.name = info().name;
  label.summary = fmt::format("{} block {}", label.name, block_);
  nlohmann::ordered_json marker = {{"format", label.name}};
  const auto& data = data_of<PaddedData>(layout);
  if (data.full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  if (data.is_padded) marker[kOriginalShape] = {data.rows, data.columns};
  label.marker = marker.dump();
  return label;
}

at::Tensor BlockFloatFormat::packed(const CodedWeight& coded, at::IntArrayRef shape) const {
  at::Tensor bytes = at::empty(shape, at::kByte);
  const std::int64_t rows = coded.codes.size(0), columns = coded.codes.size(1), row_bytes = bytes.size(1);
  const std::int64_t used = (columns + codes_per_byte_ - 1) / codes_per_byte_;
  const auto* codes = coded.codes.const_data_ptr<std::int8_t>();
  auto* out = bytes.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t row = 0; row < rows; ++row, codes += columns, out += row_bytes) {
    if (codes_per_byte_ == 1)
      for (std::int64_t k = 0; k < columns; ++k) out[k] = sign_magnitude<8>(codes[k]);
    else
      pack_pairs(codes, columns, out);
    std::fill(out + used, out + row_bytes, std::uint8_t{0});
  }
  std::fill_n(out, (bytes.size(0) - rows) * row_bytes, std::uint8_t{0});
  return bytes;
}

template <class Bits>
at::Tensor BlockFloatFormat::swizzled(const CodedWeight& coded, at::IntArrayRef shape, Bits bits_of) const {
  const at::Tensor stored = at::zeros(shape, at::kByte);
  const std::int64_t rows = coded.codes.size(0), columns = coded.codes.size(1), blocks = coded.scales.size(1);
  const at::Tensor values = coded.scales.contiguous();
  const auto* scales = values.const_data_ptr<float>();
  auto* out = stored.mutable_data_ptr<std::uint8_t>();
  const std::int64_t stored_blocks = stored.size(1);
  const auto* codes = coded.codes.const_data_ptr<std::int8_t>();
  for (std::int64_t row = 0; row < rows; ++row, codes += columns, scales += blocks)
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t first = block * block_;
      if (are_zero(codes + first, std::min(block_, columns - first))) continue;
      out[swizzled_scale(row, block, stored_blocks)] = bits_of(scales[block]);
    }
  return stored;
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
  if (data_of<PaddedData>(layout).has_input_factors) outputs.push_back({base + ".pre_quant_scale", DType::f32, {weight.shape[1]}});
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
  read_original_shape(marker, layer.base, padding_, *data);
  const TensorInfo* bias = find_other(layer, "bias");
  if (!data->is_padded && bias != nullptr && bias->shape.size() == 1 && bias->shape[0] < data->rows && bias->shape[0] > data->rows - padding_)
    data->rows = bias->shape[0];
  if (const TensorInfo* factors = find_other(layer, "pre_quant_scale"); factors != nullptr && has_tensor_scale()) {
    data->has_input_factors = true;
    const bool is_float = factors->dtype == DType::f32 || factors->dtype == DType::bf16 || factors->dtype == DType::f16;
    const std::int64_t count = factors->shape.size() == 1 ? factors->shape[0] : 0;  // that of columns, before padding
    if (!data->is_padded && count < data->columns && count > data->columns - padding_) data->columns = count;
    if (!is_float || count != data->columns)
      throw contradiction(info(), layer, factors->name, factors, fmt::format("F32, BF16 or F16 with {} values", data->columns));
  }
  return layout;
}

TensorInfo BlockFloatFormat::original(const StoredLayerInfo& layer, const Layout& layout) const {
  const auto& data = data_of<PaddedData>(layout);
  return {layer.weight.name, layer.weight.dtype, {data.rows, data.columns}};
}

Nvfp4Format::Nvfp4Format()
    : BlockFloatFormat({"nvfp4", {}, "4-bit floats (E2M1) with an E4M3 scale per 16 columns and one F32 scale", true, false, "float8_e4m3fn"},
                       DType::u8, 2, 16, 16, with_scales(e2m1_grid(), tensor_times_e4m3())) {}

std::vector<StoredTensor> Nvfp4Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  const float tensor_scale = *coded.common_scale.const_data_ptr<float>();
  // Codes of a block whose scale is too small to be stored are worth nothing.
  CodedWeight shown = coded;
  if (coded.scales.lt(tensor_scale * e4m3_value(1)).any().item<bool>()) {
    shown.codes = coded.codes.clone();
    const std::int64_t columns = coded.codes.size(1), blocks = coded.scales.size(1);
    auto* codes = shown.codes.mutable_data_ptr<std::int8_t>();
    for (std::int64_t i = 0; i < coded.scales.numel(); ++i) {
      if (e4m3_bits(coded.scales.const_data_ptr<float>()[i] / tensor_scale) != 0) continue;
      const std::int64_t first = i % blocks * block_;
      std::fill_n(codes + i / blocks * columns + first, std::min(block_, columns - first), std::int8_t{0});
    }
  }
  const at::Tensor scales = swizzled(shown, infos[1].shape, [&](float scale) { return e4m3_bits(scale / tensor_scale); });
  return {{infos[0].name, packed(shown, infos[0].shape)},
          {infos[1].name, scales.view(at::kFloat8_e4m3fn)},
          {infos[2].name, coded.common_scale.clone().view(at::IntArrayRef())},
          marker_tensor(infos[3].name, label(layout).marker)};
}

void Nvfp4Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                              float* out) const {
  const auto& data = data_of<PaddedData>(layout);
  const std::int64_t columns = data.columns;
  const std::int64_t bytes_per_row = tensors[0].size(1);
  const std::int64_t stored_blocks = tensors[1].size(1);
  const auto* codes = tensors[0].const_data_ptr<std::uint8_t>();
  const auto* block_scales = static_cast<const std::uint8_t*>(tensors[1].const_data_ptr());
  const float tensor_scale = *tensors[2].const_data_ptr<float>();
  std::vector<float> factors;
  if (data.has_input_factors) {
    factors.resize(static_cast<std::size_t>(columns));
    load_f32(tensors[3].const_data_ptr(), info_of({"", tensors[3]}).dtype, columns, factors.data());
  }
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    const std::uint8_t* bytes = codes + row * bytes_per_row;
    for (std::int64_t block = 0; block * block_ < columns; ++block) {
      const float scale = tensor_scale * e4m3_value(block_scales[swizzled_scale(row, block, stored_blocks)]);
      for (std::int64_t i = block * block_; i < std::min(columns, (block + 1) * block_); ++i) {
        const int code = i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 0xf;  // high nibble: even column
        out[i] = (code < 8 ? kE2m1Magnitudes[code] : -kE2m1Magnitudes[code - 8]) * scale;
      }
    }
    for (std::size_t i = 0; i < factors.size(); ++i) out[i] *= factors[i];
  }
}

Mxfp8Format::Mxfp8Format()
    : BlockFloatFormat({"mxfp8", {}, "8-bit floats (E4M3) with a power of two per 32 columns", true, false, "float8_e4m3fn"},
                       DType::f8_e4m3, 1, 32, 32, with_scales(float8_grid(DType::f8_e4m3), powers_of_two())) {}

std::vector<StoredTensor> Mxfp8Format::encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  const at::Tensor scales = swizzled(coded, infos[1].shape, [](float scale) {
    return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(scale) >> 23);  // its exponent, with the bias of both
  });
  return {{infos[0].name, packed(coded, infos[0].shape).view(at::kFloat8_e4m3fn)},
          {infos[1].name, scales},
          marker_tensor(infos[2].name, label(layout).marker)};
}

void Mxfp8Format::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                              float* out) const {
  constexpr int kBias = 127;
  constexpr int kNotANumber = 255;
  const std::int64_t columns = data_of<PaddedData>(layout).columns;
  const std::int64_t bytes_per_row = tensors[0].size(1);
  const std::int64_t stored_blocks = tensors[1].size(1);
  const auto* codes = static_cast<const std::byte*>(tensors[0].const_data_ptr());
  const auto* exponents = static_cast<const std::uint8_t*>(tensors[1].const_data_ptr());
  for (std::int64_t row = begin; row < end; ++row, out += columns) {
    load_f32(codes + row * bytes_per_row, DType::f8_e4m3, columns, out);
    for (std::int64_t block = 0; block * block_ < columns; ++block) {
      const int exponent = exponents[swizzled_scale(row, block, stored_blocks)];
      // Zero is the multiplier of a block of zeros, not 2^-127: so do readers take it.
      const float scale = exponent == 0             ? 0.0f
                          : exponent == kNotANumber ? std::numeric_limits<float>::quiet_NaN()
                                                    : std::ldexp(1.0f, exponent - kBias);
      for (std::int64_t i = block * block_; i < std::min(columns, (block + 1) * block_); ++i) out[i] *= scale;
    }
  }
}

}  // namespace qmill
