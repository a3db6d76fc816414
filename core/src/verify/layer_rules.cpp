#include "verify/layer_rules.h"

#include "readers/detection_layers.h"
#include "readers/modules.h"
#include "readers/reader_formats.h"

#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill {
namespace {

using Shape = std::vector<std::int64_t>;

std::string describe(const TensorInfo& tensor) { return fmt::format("{} [{}]", dtype_name(tensor.dtype), fmt::join(tensor.shape, ", ")); }

std::int64_t rounded_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

class LayerRules {
 public:
  LayerRules(const MarkedLayer& layer, Findings& findings) : layer_(layer), findings_(findings) {}

  void check() {
    if (layer_.weight == nullptr)
      return findings_.error("marker-without-weight", layer_.base,
                             "it is marked as quantized and has no weight: readers switch to quantized layers and miss this one");
    if (layer_.weight->name == layer_.base)
      return findings_.error("quantized-parameter", layer_.base, "it is a bare parameter: readers quantize weights of linear layers only");
    const auto field = layer_.marker.find("format");
    if (field == layer_.marker.end() || !field->is_string())
      return findings_.error("marker-format", layer_.base, "its marker has no text 'format': readers stop there");
    format_ = field->get<std::string>();
    if (find_reader_format(format_) == nullptr)
      return findings_.error("unknown-format", layer_.base,
                             fmt::format("format '{}' is unknown to readers (known: {})", format_, fmt::join(reader_format_names(), ", ")));
    check_module();
    if (format_ == "int8_tensorwise") check_int8();
    if (format_ == "convrot_w4a4") check_convrot_w4a4();
    if (format_ == "asym_w4a8_int8") check_asym_w4a8();
    if (format_ == "nvfp4") check_nvfp4();
    if (format_ == "mxfp8") check_mxfp8();
    if (format_.starts_with("float8_")) check_float8();
    check_extras();
  }

 private:
  const TensorInfo& weight() const { return *layer_.weight; }
  std::int64_t rows() const { return weight().shape.front(); }
  bool is_matrix() const { return weight().shape.size() == 2; }
  bool is_bank() const { return weight().shape.size() == 3; }

  const TensorInfo* other(const std::string& suffix) const {
    const auto found = layer_.others.find(suffix);
    return found == layer_.others.end() ? nullptr : found->second;
  }

  void error(std::string rule, std::string text) { findings_.error(std::move(rule), layer_.base, std::move(text)); }

  // Linear layers, embeddings and banks of experts may be quantized.
  void check_module() {
    const std::size_t dimensions = weight().shape.size();
    if (dimensions < 2)
      error("quantized-module", fmt::format("its weight is {}: norms and biases must stay floating", describe(weight())));
    else if (dimensions > 3)
      error("quantized-module", fmt::format("its weight is {}: convolutions must stay floating", describe(weight())));
    else if (is_bank() && !layer_.marker.contains("num_experts"))
      error("quantized-module", fmt::format("its weight is {}: a bank of experts needs 'num_experts' in its marker, and a convolution must "
                                            "stay floating",
                                            describe(weight())));
    if (!is_matrix()) return;
    const ModuleKind kind = module_kind(layer_.base);
    const bool is_read = find_reader_format(format_)->is_read_in(kind);
    if (kind == ModuleKind::parameter)
      error("quantized-module", "it is a parameter without a module: ComfyUI reads no marker there and takes codes for values");
    if (kind == ModuleKind::embedding)
      findings_.remark("quantized-embedding", layer_.base,
                       is_read ? "it looks like an embedding table: stable-diffusion.cpp reads quantized linear layers only"
                               : "it looks like an embedding table: readers take float8 and int8 for these only",
                       Effect::doubt, is_read ? Effect::none : Effect::stops);
  }

  bool has_weight_dtype(DType expected) {
    if (weight().dtype == expected) return true;
    error("weight-dtype", fmt::format("its weight is {}, expected {} for {}", describe(weight()), dtype_name(expected), format_));
    return false;
  }

  // The tensor BASE.suffix, if it has one of these types; else an error.
  const TensorInfo* required(const std::string& suffix, const std::vector<DType>& types, std::string_view because = "") {
    const TensorInfo* tensor = other(suffix);
    if (tensor == nullptr) {
      error("scale-missing", fmt::format("{} needs the tensor '{}.{}'", format_, layer_.base, suffix));
      return nullptr;
    }
    if (std::find(types.begin(), types.end(), tensor->dtype) != types.end()) return tensor;
    std::vector<std::string_view> names;
    for (const DType type : types) names.push_back(dtype_name(type));
    error("scale-dtype", fmt::format("'{}' is {}, expected {}{}{}", suffix, describe(*tensor), fmt::join(names, " or "),
                                     because.empty() ? "" : ": ", because));
    return nullptr;
  }

  void require_shape(const std::string& suffix, const TensorInfo* tensor, const Shape& expected) {
    if (tensor != nullptr && tensor->shape != expected)
      error("scale-shape", fmt::format("'{}' is {}, expected [{}]", suffix, describe(*tensor), fmt::join(expected, ", ")));
  }

  // A positive integer of the marker, at the top or (where readers of linear layers look, too) in 'params'.
  std::optional<std::int64_t> number(const char* key) {
    const MarkerJson* field = find(key);
    if (field == nullptr) return std::nullopt;
    if (field->is_number_integer() && *field > 0) return field->get<std::int64_t>();
    error("marker-value", fmt::format("'{}' is {}, expected a positive integer", key, excerpt(*field)));
    return std::nullopt;
  }

  const MarkerJson* find(const char* key) {
    if (const auto field = layer_.marker.find(key); field != layer_.marker.end()) return &*field;
    const auto params = layer_.marker.find("params");
    if (params == layer_.marker.end() || !params->is_object()) return nullptr;
    const auto field = params->find(key);
    if (field == params->end()) return nullptr;
    findings_.remark("nested-key", layer_.base, fmt::format("'{}' is inside 'params', where not every reader looks", key), Effect::doubt);
    return &*field;
  }

  void check_group(std::int64_t group, std::int64_t columns) {
    std::int64_t power = 4;
    while (power < group && power <= (std::int64_t{1} << 40)) power *= 4;
    if (power != group)
      error("rotation-group", fmt::format("it is rotated in groups of {}, which is no power of 4: readers fail at the first use", group));
    else if (columns % group != 0)
      error("rotation-group", fmt::format("it is rotated in groups of {}, which does not divide its {} columns", group, columns));
  }

  // [N] computes until the weight is decoded, where it runs along the columns.
  void check_row_scale(const TensorInfo& scale, bool must_be_rows) {
    const Shape per_row = is_bank() ? Shape{weight().shape[0], weight().shape[1], 1} : Shape{rows(), 1};
    if (scale.shape == per_row) return;
    if (scale.shape.empty() && !must_be_rows) {
      findings_.remark("one-scale", layer_.base, "it has one scale for all rows: stable-diffusion.cpp needs one per row", Effect::stops);
    } else if (scale.shape == Shape{1} && !must_be_rows) {
      findings_.remark("scale-shape", layer_.base, "'weight_scale' is [1], expected []: once a LoRA is applied, it becomes one per row",
                       Effect::stops);
    } else {
      error("scale-shape", fmt::format("'weight_scale' is {}, expected [{}]{}{}", describe(scale), fmt::join(per_row, ", "),
                                       must_be_rows ? ", as it is rotated" : " or []",
                                       scale.shape == Shape{rows()} ? ": decoded, it would run along the columns" : ""));
    }
  }

  void check_int8() {
    has_weight_dtype(DType::i8);
    const MarkerJson* const convrot = find("convrot");
    if (convrot != nullptr && !convrot->is_boolean())
      error("marker-value", fmt::format("'convrot' is {}, expected true or false", excerpt(*convrot)));
    const bool is_rotated = convrot != nullptr && convrot->is_boolean() && convrot->get<bool>();
    if (!is_matrix() && !is_bank()) return;
    if (const TensorInfo* scale = required("weight_scale", {DType::f32}, "other types lose precision or stop readers"))
      check_row_scale(*scale, is_rotated);
    if (!is_rotated || !is_matrix()) return;
    if (find("convrot_groupsize") == nullptr)
      findings_.remark("rotation-group", layer_.base,
                       "its marker does not say 'convrot_groupsize': ComfyUI takes 256, stable-diffusion.cpp rejects it", Effect::stops);
    const std::optional<std::int64_t> group = find("convrot_groupsize") == nullptr ? 256 : number("convrot_groupsize");
    if (!group) return;
    check_group(*group, weight().shape[1]);
    if (*group != 256)
      findings_.remark("slow-rotation", layer_.base,
                       fmt::format("groups of {} take ComfyUI's slow path; stable-diffusion.cpp on CUDA wants 256", *group), Effect::stops);
  }

  // Two codes a byte: readers that tell models apart by this layer's columns see half of them.
  void check_packed() {
    if (const DetectionLayer* found = find_detection_layer(weight().name, Side::columns))
      error("detection",
            fmt::format("readers detect the model by its columns ({}), and packed it shows {}", found->models, weight().shape[1]));
  }

  bool is_packed_matrix(DType type) {
    if (!has_weight_dtype(type)) return false;
    if (!is_matrix()) {
      if (weight().shape.size() == 3)
        error("quantized-module", fmt::format("its weight is {}: {} is for matrices", describe(weight()), format_));
      return false;
    }
    check_packed();
    return true;
  }

  void require_divisor(std::int64_t columns, std::int64_t divisor) {
    if (divisor != 0 && columns % divisor != 0)
      error("columns", fmt::format("its {} columns are no multiple of {}, as {} needs", columns, divisor, format_));
  }

  void check_convrot_w4a4() {
    if (!is_packed_matrix(DType::i8)) return;
    const std::int64_t columns = 2 * weight().shape[1];
    require_shape("weight_scale", required("weight_scale", {DType::f32}), {rows()});
    require_divisor(columns, 64);
    const std::int64_t group = number("convrot_groupsize").value_or(256);
    check_group(group, columns);
    if (group != 16 && group != 64 && group != 256)
      findings_.remark("slow-rotation", layer_.base, fmt::format("groups of {} take the slow path; 16, 64 and 256 do not", group));
    if (const MarkerJson* type = find("linear_dtype"); type != nullptr && *type != "int4" && *type != "int8")
      error("marker-value", fmt::format("'linear_dtype' is {}, expected \"int4\" or \"int8\"", excerpt(*type)));
  }

  void check_asym_w4a8() {
    if (!is_packed_matrix(DType::i8)) return;
    const std::int64_t columns = 2 * weight().shape[1];
    const std::int64_t group = number("group_size").value_or(16);
    if (group < 4 || (16 % group != 0 && group % 16 != 0))
      return error("marker-value", fmt::format("'group_size' is {}, expected 4, 8 or a multiple of 16", group));
    require_divisor(columns, 16);
    require_divisor(columns, group);
    check_group(number("convrot_groupsize").value_or(256), columns);
    require_shape("weight_s_rel", required("weight_s_rel", {DType::f8_e4m3, DType::u8, DType::f32}), {rows(), columns / group});
    require_shape("weight_s_channel", required("weight_s_channel", {DType::f32}), {rows()});
    if (other("weight_codebook") != nullptr) require_shape("weight_codebook", required("weight_codebook", {DType::f32}), {16});
    if (other("weight_correction") != nullptr)
      error("ignored-tensor", "'weight_correction' is not read: the codes mean something else without it");
  }

  // Scales lie in tiles of 128 x 4.
  void require_tiled_scale(const std::vector<DType>& types, std::int64_t blocks) {
    require_shape("weight_scale", required("weight_scale", types), {rounded_up(rows(), 128), rounded_up(blocks, 4)});
  }

  void require_padding(std::int64_t columns, std::int64_t step) {
    if (rows() % step != 0 || columns % step != 0)
      return error("columns", fmt::format("it has {} rows and {} columns, expected multiples of {}", rows(), columns, step));
    const TensorInfo* bias = other("bias");
    const bool has_padded_rows = bias != nullptr && bias->shape.size() == 1 && bias->shape[0] != rows();
    if (has_padded_rows && (bias->shape[0] > rows() || bias->shape[0] <= rows() - step))
      return error("columns", fmt::format("its bias has {} values, and its weight {} rows that are padded to a multiple of {}", bias->shape[0],
                                          rows(), step));
    if (has_padded_rows && format_ == "mxfp8")
      error("padded-bias", fmt::format("its bias has {} values and its padded weight {} rows: readers that multiply in mxfp8 fail there",
                                       bias->shape[0], rows()));
    if (const MarkerJson* shape = find("orig_shape"); shape != nullptr && !is_padded_from(*shape, columns, step, bias))
      error("marker-value", fmt::format("'orig_shape' is {}, expected the shape that {} x {} is padded from", excerpt(*shape), rows(), columns));
    const DetectionLayer* found = has_padded_rows ? find_detection_layer(weight().name, Side::rows) : nullptr;
    if (found != nullptr)
      error("detection", fmt::format("readers detect the model by its rows ({}), and padded it shows {} of {}", found->models, rows(),
                                     bias->shape[0]));
  }

  bool is_padded_from(const MarkerJson& shape, std::int64_t columns, std::int64_t step, const TensorInfo* bias) const {
    if (!shape.is_array() || shape.size() != 2 || !shape[0].is_number_integer() || !shape[1].is_number_integer()) return false;
    const auto true_rows = shape[0].get<std::int64_t>(), true_columns = shape[1].get<std::int64_t>();
    const bool fits = true_rows > rows() - step && true_rows <= rows() && true_columns > columns - step && true_columns <= columns;
    return fits && (bias == nullptr || bias->shape.size() != 1 || bias->shape[0] == true_rows);
  }

  void check_nvfp4() {
    if (!is_packed_matrix(DType::u8)) return;
    const std::int64_t columns = 2 * weight().shape[1];
    require_padding(columns, 16);
    require_tiled_scale({DType::f8_e4m3, DType::u8}, columns / 16);
    require_shape("weight_scale_2", required("weight_scale_2", {DType::f32}), {});
  }

  void check_mxfp8() {
    if (!has_weight_dtype(DType::f8_e4m3) || !is_matrix()) return;
    require_padding(weight().shape[1], 32);
    require_tiled_scale({DType::u8}, weight().shape[1] / 32);
  }

  void check_float8() {
    has_weight_dtype(format_ == "float8_e4m3fn" ? DType::f8_e4m3 : DType::f8_e5m2);
    const TensorInfo* scale = required("weight_scale", {DType::f32}, "other types stop readers; qmill dequantize decodes the file");
    if (scale != nullptr && scale->shape == Shape{1})
      findings_.remark("scale-shape", layer_.base, "'weight_scale' is [1], expected []");
    else
      require_shape("weight_scale", scale, {});
  }

  // Tensors that readers of this format pass over.
  void check_extras() {
    const bool is_float = format_.starts_with("float8_") || format_ == "nvfp4" || format_ == "mxfp8";
    if (other("input_scale") != nullptr && !is_float)
      findings_.remark("input-scale", layer_.base,
                       fmt::format("'input_scale' is not read for {}: readers list it as an unexpected key", format_));
    for (const char* suffix : {"pre_quant_scale", "smooth_factors"})
      if (other(suffix) != nullptr && (format_ != "nvfp4" || suffix != std::string_view("pre_quant_scale")))
        error("ignored-tensor",
              fmt::format("'{}' should multiply the inputs, and is not read for {}: outputs would be wrong", suffix, format_));
    if (const auto flag = layer_.marker.find("full_precision_matrix_mult"); flag != layer_.marker.end() && !flag->is_boolean())
      error("marker-value", fmt::format("'full_precision_matrix_mult' is {}, expected true or false", excerpt(*flag)));
  }

  const MarkedLayer& layer_;
  Findings& findings_;
  std::string format_;
};

}  // namespace

MarkedLayer marked_layer(const LayerTensors& tensors, const std::string& base, const MarkerJson& marker) {
  return {base, marker, tensors.weight(base), tensors.of(base)};
}

void check_layer(const MarkedLayer& layer, Findings& findings) { LayerRules(layer, findings).check(); }

}  // namespace qmill
