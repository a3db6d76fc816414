#include "hadamard_quip_format.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/hadamard.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

namespace quip {
namespace {

using qmill::DType;
using qmill::Error;
using qmill::ErrorKind;
using qmill::Layout;
using qmill::TensorInfo;

constexpr std::int64_t kLargestSide = std::int64_t{1} << 30;  // sizes are stored as I32
constexpr std::int64_t kColumnsPerStrip = 16;                           // columns: a cache line of each row

std::int64_t padded(std::int64_t side) { return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(side))); }

struct HadamardQuipData final : qmill::FormatData {
  std::int64_t rows = 0;  // of the decoded weight
  std::int64_t columns = 0;
  bool full_precision_matrix_mult = false;

  std::string text() const override {
    return fmt::format("{}x{}{}", rows, columns, full_precision_matrix_mult ? " full precision" : "");
  }
};

const HadamardQuipData& data_of(const Layout& layout) { return qmill::data_of<HadamardQuipData>(layout); }

std::string text_of(const TensorInfo* tensor) {
  return tensor == nullptr ? "missing" : fmt::format("{} {}", qmill::dtype_name(tensor->dtype), tensor->shape_text());
}

// Of the decoded weight: two positive integers.
std::vector<std::int64_t> marked_shape(const nlohmann::json& marker) {
  std::vector<std::int64_t> shape;
  const auto field = marker.find("shape");
  if (field == marker.end() || !field->is_array() || field->size() != 2) return {};
  for (const nlohmann::json& side : *field) {
    // Counted in unsigned: 2^64 - 1 is no -1 here, and no side either.
    if (!side.is_number_unsigned() || side.get<std::uint64_t>() == 0 || side.get<std::uint64_t>() > kLargestSide) return {};
    shape.push_back(side.get<std::int64_t>());
  }
  return shape;
}

}  // namespace

const qmill::FormatInfo& HadamardQuipFormat::info() const {
  static const qmill::FormatInfo info = {
      kHadamardQuip, {}, "8-bit integers with F32 scales per row, in a random Hadamard basis of the whole matrix", false};
  return info;
}

Layout HadamardQuipFormat::layout(const TensorInfo& weight, const qmill::StorageOptions& wanted) const {
  if (weight.shape.size() != 2 || weight.elements() == 0)
    throw Error(ErrorKind::unsupported,
                fmt::format("{} stores matrices with values; '{}' is {}", kHadamardQuip, weight.name, weight.shape_text()));
  if (const qmill::Scaling scaling = wanted.scaling.value_or(qmill::Scaling::row); scaling != qmill::Scaling::row)
    throw Error(ErrorKind::usage, fmt::format("{} has one scale per row; found {} scaling", kHadamardQuip, scaling_name(scaling)),
                "use `scaling_mode row`, or another format");
  if (wanted.naming != qmill::Naming::comfy)
    throw Error(ErrorKind::usage,
                fmt::format("{} needs ComfyUI names, whose marker says which shape is decoded; found legacy names", kHadamardQuip),
                "use `comfy_quant on`, or another format");
  if (wanted.rotation.must_rotate())
    throw Error(ErrorKind::usage,
                fmt::format("{} has a basis of its own; found rotation '{}'", kHadamardQuip, rotation_text(wanted.rotation)),
                "leave out `convrot`, or use another format");
  const auto data = std::make_shared<HadamardQuipData>();
  data->rows = weight.shape[0];
  data->columns = weight.shape[1];
  data->full_precision_matrix_mult = wanted.full_precision_matrix_mult;
  if (data->rows > kLargestSide || data->columns > kLargestSide)
    throw Error(ErrorKind::unsupported, fmt::format("{} stores at most {} rows or columns; '{}' is {}", kHadamardQuip, kLargestSide,
                                                    weight.name, weight.shape_text()));
  Layout layout;
  layout.data = data;
  layout.tile_columns = padded(data->columns);
  const std::int64_t rows = padded(data->rows);
  if (rows != data->rows || layout.tile_columns != data->columns)
    layout.note =
        fmt::format("padded to {} x {}: {:.2f} bytes per value", rows, layout.tile_columns,
                    static_cast<double>(rows) * static_cast<double>(layout.tile_columns) / static_cast<double>(weight.elements()));
  return layout;
}

qmill::FormatLabel HadamardQuipFormat::label(const Layout& layout) const {
  qmill::FormatLabel label;
  label.name = kHadamardQuip;
  label.summary = "int8 row, random Hadamard basis";
  const HadamardQuipData& data = data_of(layout);
  nlohmann::ordered_json marker = {{"format", kHadamardQuip}, {"shape", {data.rows, data.columns}}};
  if (data.full_precision_matrix_mult) marker["full_precision_matrix_mult"] = true;
  label.marker = marker.dump();
  return label;
}

std::vector<TensorInfo> HadamardQuipFormat::outputs(const TensorInfo& weight, const Layout& layout) const {
  const std::string base = qmill::layer_base(weight.name);
  const std::int64_t rows = padded(data_of(layout).rows);
  const std::int64_t columns = padded(data_of(layout).columns);
  return {{weight.name, DType::i8, {rows, columns}},
          {base + ".weight_scale", DType::f32, {rows, 1}},
          {base + ".hadamard_quip", DType::i8, {}},
          {base + ".hadamard_size_out", DType::i32, {}},
          {base + ".hadamard_size_in", DType::i32, {}},
          {base + ".sign_row", DType::f32, {rows}},
          {base + ".sign_col", DType::f32, {columns}},
          // Last: a file may have it in its header alone.
          {base + ".comfy_quant", DType::u8, {static_cast<std::int64_t>(label(layout).marker.size())}}};
}

std::vector<qmill::StoredTensor> HadamardQuipFormat::store(const TransformedWeight& transformed, const TensorInfo& weight,
                                                           const Layout& layout) const {
  const std::vector<TensorInfo> infos = outputs(weight, layout);
  const std::string text = label(layout).marker;
  const at::Tensor marker = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(marker.data_ptr(), text.data(), text.size());
  return {{infos[0].name, transformed.codes},
          {infos[1].name, transformed.scales},
          {infos[2].name, at::scalar_tensor(1, at::kChar)},
          {infos[3].name, at::scalar_tensor(infos[0].shape[0], at::kInt)},
          {infos[4].name, at::scalar_tensor(infos[0].shape[1], at::kInt)},
          {infos[5].name, transformed.sign_row},
          {infos[6].name, transformed.sign_col},
          {infos[7].name, marker}};
}

std::optional<Layout> HadamardQuipFormat::recognise(const qmill::StoredLayerInfo& layer) const {
  if (layer.marker.empty()) return std::nullopt;
  const nlohmann::json marker = nlohmann::json::parse(layer.marker, nullptr, false);
  const auto format = marker.is_object() ? marker.find("format") : marker.end();
  if (format == marker.end() || !format->is_string() || format->get_ref<const std::string&>() != kHadamardQuip) return std::nullopt;

  const std::vector<std::int64_t> shape = marked_shape(marker);
  if (shape.empty())
    throw Error(ErrorKind::input,
                fmt::format("the marker of layer '{}' has no 'shape' of two integers from 1 to {}", layer.base, kLargestSide));
  const auto data = std::make_shared<HadamardQuipData>();
  data->rows = shape[0];
  data->columns = shape[1];
  Layout layout;
  layout.data = data;
  layout.tile_columns = padded(data->columns);
  const auto full_precision = marker.find("full_precision_matrix_mult");
  data->full_precision_matrix_mult = full_precision != marker.end() && full_precision->is_boolean() && full_precision->get<bool>();

  std::vector<TensorInfo> expected = outputs({layer.base + ".weight", DType::f32, shape}, layout);
  expected.front().name = layer.weight.name;
  expected.pop_back();  // the marker is here
  for (const TensorInfo& tensor : expected) {
    const TensorInfo* found = tensor.name == layer.weight.name ? &layer.weight : nullptr;
    for (const TensorInfo& other : layer.others)
      if (other.name == tensor.name) found = &other;
    if (found == nullptr || *found != tensor)
      throw Error(ErrorKind::input, fmt::format("layer '{}' is marked {} of {} x {}, and '{}' is {}, expected {}", layer.base,
                                                kHadamardQuip, shape[0], shape[1], tensor.name, text_of(found), text_of(&tensor)));
  }
  return layout;
}

TensorInfo HadamardQuipFormat::original(const qmill::StoredLayerInfo& layer, const Layout& layout) const {
  return {layer.weight.name, layer.weight.dtype, {data_of(layout).rows, data_of(layout).columns}};
}

void HadamardQuipFormat::decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                                     float* out) const {
  const std::int64_t rows = tensors[0].size(0);
  const std::int64_t columns = tensors[0].size(1);
  const auto require = [](const at::Tensor& stored, const char* what, std::int64_t expected) {
    const std::int64_t found = stored.item<std::int64_t>();
    if (found != expected) throw Error(ErrorKind::input, fmt::format("its {} is {}, expected {}", what, found, expected));
  };
  require(tensors[2], "hadamard_quip", 1);
  require(tensors[3], "hadamard_size_out", rows);
  require(tensors[4], "hadamard_size_in", columns);
  const auto* codes = tensors[0].const_data_ptr<std::int8_t>();
  const auto* scales = tensors[1].const_data_ptr<float>();
  const auto* sign_row = tensors[5].const_data_ptr<float>();
  const auto* sign_col = tensors[6].const_data_ptr<float>();

  // Columns that are cropped need no more than the transform of their row.
  const std::int64_t kept = data_of(layout).columns;
  const at::Tensor half = at::empty({rows, kept}, at::kFloat);
  auto* halves = half.mutable_data_ptr<float>();
  std::vector<float> scratch(static_cast<std::size_t>(std::max(columns, kColumnsPerStrip * rows)));
  for (std::int64_t row = 0; row < rows; ++row) {
    qmill::scale_codes(codes + row * columns, columns, scales[row], scratch.data());
    qmill::sylvester_transform(scratch.data(), columns);
    for (std::int64_t k = 0; k < kept; ++k) halves[row * kept + k] = scratch[static_cast<std::size_t>(k)] * sign_col[k];
  }
  for (std::int64_t first = 0; first < kept; first += kColumnsPerStrip) {
    const std::int64_t last = std::min(kept, first + kColumnsPerStrip);
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t k = first; k < last; ++k)
        scratch[static_cast<std::size_t>((k - first) * rows + row)] = halves[row * kept + k];
    for (std::int64_t k = first; k < last; ++k) qmill::sylvester_transform(scratch.data() + (k - first) * rows, rows);
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t k = first; k < last; ++k)
        out[(row - begin) * kept + k] = scratch[static_cast<std::size_t>((k - first) * rows + row)] * sign_row[row];
  }
}

}  // namespace quip
