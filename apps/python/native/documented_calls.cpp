// The API under its documented names, for the package convert_to_quant.
#include "call.h"
#include "options.h"
#include "tensors.h"

#include <qmill/qmill.h>

#include <limits>
#include <set>

namespace qmill::python {
namespace {

// Members of an object as members of a struct: each at most once, null is not given, none is left over.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {}

  template <class Type>
  void read(const char* key, Type& value) {
    known_.insert(key);
    const auto found = object_.find(key);
    if (found != object_.end() && !found->is_null()) assign(key, *found, value);
  }

  // Throws Error(usage) for a member that nothing read.
  void finish() const {
    for (const auto& [key, value] : object_.items())
      if (!known_.contains(key)) throw Error(ErrorKind::usage, "there is no parameter '" + key + "'");
  }

 private:
  template <class Type>
  void assign(const char* key, const Json& given, Type& value) const {
    try {
      value = given.get<Type>();
    } catch (const Json::exception&) {
      throw Error(ErrorKind::usage, std::string(key) + " is " + given.dump() + ", which is no value of its type");
    }
  }
  template <class Type>
  void assign(const char* key, const Json& given, std::optional<Type>& value) const {
    assign(key, given, value.emplace());
  }
  void assign(const char* key, const Json& given, std::map<std::string, std::optional<std::int64_t>>& value) const {
    if (!given.is_object()) throw Error(ErrorKind::usage, std::string(key) + " is " + given.dump() + ", expected limits by step");
    for (const auto& [name, limit] : given.items()) {
      std::optional<std::int64_t>& entry = value[name];
      if (!limit.is_null()) assign(key, limit, entry.emplace());
    }
  }
  void assign(const char* key, const Json& given, std::map<std::string, OptionValue>& value) const {
    if (!given.is_object()) throw Error(ErrorKind::usage, std::string(key) + " is " + given.dump() + ", expected options by name");
    for (const auto& [name, option] : given.items())
      if (!option.is_null()) value[name] = option_value(name, option);
  }

  const Json& object_;
  std::set<std::string> known_;
};

Answer convert_model(const Call& call) {
  ConvertToInt8Options options;
  options.seed = 0;
  Reader reader(call.request);
  reader.read("input_file", options.input_file);
  reader.read("output_file", options.output_file);
  reader.read("comfy_quant", options.comfy_quant);
  reader.read("filter_flags", options.filter_flags);
  reader.read("calib_samples", options.calib_samples);
  reader.read("seed", options.seed);
  reader.read("fp16", options.fp16);
  reader.read("fallback", options.fallback);
  reader.read("custom_layers", options.custom_layers);
  reader.read("exclude_layers", options.exclude_layers);
  reader.read("custom_type", options.custom_type);
  reader.read("custom_block_size", options.custom_block_size);
  reader.read("custom_scaling_mode", options.custom_scaling_mode);
  reader.read("custom_simple", options.custom_simple);
  reader.read("custom_heur", options.custom_heur);
  reader.read("fallback_block_size", options.fallback_block_size);
  reader.read("fallback_simple", options.fallback_simple);
  reader.read("full_precision_matrix_mult", options.full_precision_matrix_mult);
  reader.read("skip_inefficient_layers", options.skip_inefficient_layers);
  reader.read("include_input_scale", options.include_input_scale);
  reader.read("no_learned_rounding", options.no_learned_rounding);
  reader.read("save_quant_metadata", options.save_quant_metadata);
  reader.read("layer_config_fullmatch", options.layer_config_fullmatch);
  reader.read("low_memory", options.low_memory);
  reader.read("streaming_mode", options.streaming_mode);
  reader.read("streaming_thresholds", options.streaming_thresholds);
  reader.read("no_memory_limits", options.no_memory_limits);
  reader.read("report_quality", options.report_quality);
  reader.read("quality_threshold", options.quality_threshold);
  reader.read("smoothquant", options.smoothquant);
  reader.read("smoothquant_alpha", options.smoothquant_alpha);
  reader.read("calibration_data_path", options.calibration_data_path);
  reader.read("calibration_lora_path", options.calibration_lora_path);
  reader.read("gptq_actorder", options.gptq_actorder);
  reader.read("gptq_fast", options.gptq_fast);
  reader.read("gptq_turbo", options.gptq_turbo);
  reader.read("quip_actorder", options.quip_actorder);
  reader.read("quip_hadamard", options.quip_hadamard);
  reader.read("quip_seed", options.quip_seed);
  reader.read("quip_store_transformed", options.quip_store_transformed);
  reader.read("quip_requant_scheme", options.quip_requant_scheme);
  reader.read("quip_requant_tensor_per_row", options.quip_requant_tensor_per_row);
  reader.read("quip_checkpointed", options.quip_checkpointed);
  reader.read("quip_checkpoint_threshold", options.quip_checkpoint_threshold);
  reader.read("quip_checkpoint_segments", options.quip_checkpoint_segments);
  reader.read("merge_lora_path", options.merge_lora_path);
  reader.read("merge_lora_paths", options.merge_lora_paths);
  reader.read("merge_lora_scale", options.merge_lora_scale);
  reader.read("merge_lora_dampen", options.merge_lora_dampen);
  reader.read("converter_kwargs", options.converter_kwargs);
  Json layer_config, plugin_dirs;
  reader.read("layer_config", layer_config);
  reader.read("plugin_dirs", plugin_dirs);
  reader.finish();
  options.layer_config = layer_config_of(call.request);
  Answer answer;
  convert_to_int8(call.host(), options, call.hooks, &answer.json);
  return answer;
}

std::unique_ptr<Int8Converter> quip_converter(const Json& given, const Host& host) {
  QuIPInt8ConverterOptions options;
  Reader reader(given);
  reader.read("block_size", options.block_size);
  reader.read("device", options.device);
  reader.read("actorder", options.actorder);
  reader.read("use_hadamard", options.use_hadamard);
  reader.read("seed", options.seed);
  reader.read("use_triton", options.use_triton);
  reader.read("lazy_updates", options.lazy_updates);
  reader.read("store_transformed", options.store_transformed);
  reader.read("requant_scheme", options.requant_scheme);
  reader.read("requant_tensor_use_per_row_scale", options.requant_tensor_use_per_row_scale);
  reader.read("streaming_mode", options.streaming_mode);
  reader.read("streaming_thresholds", options.streaming_thresholds);
  reader.read("no_memory_limits", options.no_memory_limits);
  reader.read("use_checkpointed_ldlq", options.use_checkpointed_ldlq);
  reader.read("checkpointed_ldlq_threshold", options.checkpointed_ldlq_threshold);
  reader.read("checkpoint_segments", options.checkpoint_segments);
  reader.finish();
  return std::make_unique<QuIPInt8Converter>(options, host);
}

std::unique_ptr<Int8Converter> learned_rounding_converter(const Json& given, const Host& host) {
  LearnedRoundingConverterOptions options;
  Reader reader(given);
  reader.read("block_size", options.block_size);
  reader.read("num_iter", options.num_iter);
  reader.read("lr", options.lr);
  reader.read("optimizer", options.optimizer);
  reader.read("lr_schedule", options.lr_schedule);
  reader.read("top_p", options.top_p);
  reader.read("min_k", options.min_k);
  reader.read("max_k", options.max_k);
  reader.finish();
  return std::make_unique<LearnedRoundingConverter>(options, host);
}

std::unique_ptr<Int8Converter> gptq_converter(const Json& given, const Host& host) {
  GPTQInt8ConverterOptions options;
  Reader reader(given);
  reader.read("block_size", options.block_size);
  reader.read("device", options.device);
  reader.read("actorder", options.actorder);
  reader.read("lazy_updates", options.lazy_updates);
  reader.read("use_triton", options.use_triton);
  reader.finish();
  return std::make_unique<GPTQInt8Converter>(options, host);
}

// Tensors: those that "inputs" names, of weight, H and activation_scales. Without a weight only the options are checked.
Answer int8_converter(const Call& call) {
  const std::string kind = call.text("kind");
  const Json& options = call.member("options");
  const std::unique_ptr<Int8Converter> converter = kind == "quip"   ? quip_converter(options, call.host())
                                                   : kind == "gptq" ? gptq_converter(options, call.host())
                                                                    : learned_rounding_converter(options, call.host());
  const auto names = call.member("inputs").get<std::vector<std::string>>();
  at::Tensor weight;
  ConverterInputs inputs;
  inputs.smoothquant_alpha = call.real("smoothquant_alpha", inputs.smoothquant_alpha);
  for (std::size_t i = 0; i < names.size(); ++i)
    (names[i] == "weight" ? weight : names[i] == "H" ? inputs.H : inputs.activation_scales) = call.tensor(i);
  if (!weight.defined()) return {};
  const ConvertedWeight converted = converter->convert(weight, inputs);
  Outputs outputs;
  outputs.add("q", converted.q);
  outputs.add("scale", converted.scale);
  outputs.add("dequantized", converted.dequantized);
  return outputs.answer(Json::object());
}

// Tensors: original, dequantized, and the inputs if there are some.
Answer quality(const Call& call) {
  QualityReporter reporter;
  if (call.tensors.size() > 2)
    reporter.add_layer(call.text("name"), call.tensor(0), call.tensor(1), call.tensor(2));
  else
    reporter.add_layer(call.text("name"), call.tensor(0), call.tensor(1));
  return {quality_json(reporter.layers())};
}

std::optional<double> number(const Json& layer, const char* key) {
  const auto found = layer.find(key);
  return found == layer.end() || found->is_null() ? std::nullopt : std::optional(found->get<double>());
}

// {"layers": those of quality(), "threshold"}
Answer quality_text(const Call& call) {
  std::vector<LayerQuality> layers;
  for (const Json& layer : call.member("layers")) {
    LayerQuality quality;
    quality.name = layer.at("name").get<std::string>();
    quality.format = layer.at("format").get<std::string>();
    quality.layout = layer.at("layout").get<std::string>();
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    quality.mse = number(layer, "mse").value_or(kNone);
    quality.sqnr_db = number(layer, "sqnr_db");
    quality.max_error = number(layer, "max_error").value_or(kNone);
    quality.output_error = number(layer, "output_error");
    quality.rounding_output_error = number(layer, "rounding_output_error");
    quality.output_rows = static_cast<std::int64_t>(number(layer, "output_rows").value_or(0));
    layers.push_back(std::move(quality));
  }
  return {Json{{"text", quality_report_text(std::move(layers), call.real("threshold", 30))}}.dump()};
}

Answer lora_tensors(const Call& call) {
  Outputs outputs;
  for (const auto& [name, tensor] : load_lora_tensors(call.host(), call.text("path"))) outputs.add(name, tensor);
  return outputs.answer(Json::object());
}

// Tensors: A and B of each layer.
Answer lora_for_merging(const Call& call) {
  Outputs outputs;
  Json layers = Json::array();
  for (const auto& [name, data] : load_lora_for_merging(call.host(), call.text("path"))) {
    layers.push_back({{"name", name}, {"alpha", data.alpha}, {"rank", data.rank}});
    outputs.add("lora_A", data.lora_A);
    outputs.add("lora_B", data.lora_B);
  }
  return outputs.answer({{"layers", layers}});
}

// Tensors: the weight, then A and B of each LoRA.
Answer merge_lora(const Call& call) {
  Outputs outputs;
  outputs.add("weight", merge_lora_into_weight(call.tensor(0), call.tensor(1), call.tensor(2), call.real("alpha", 1),
                                               call.integer("rank", 1), call.real("scale", 1)));
  return outputs.answer(Json::object());
}

Answer merge_loras(const Call& call) {
  std::vector<LoraConfig> loras;
  for (const Json& lora : call.member("loras")) {
    const std::size_t first = 1 + 2 * loras.size();
    loras.push_back({call.tensor(first), call.tensor(first + 1), lora.value("alpha", 1.0), lora.value("rank", std::int64_t{1}),
                     lora.value("scale", 1.0)});
  }
  Outputs outputs;
  outputs.add("weight", merge_multiple_loras(call.tensor(0), loras));
  return outputs.answer(Json::object());
}

Answer check_layer_config(const Call& call) {
  load_layer_config(call.text("path"));
  return {};
}

Answer logging(const Call& call) {
  setup_logging(call.text("level"));
  return {};
}

}  // namespace

void add_documented_calls(Functions& functions) {
  functions["convert_to_int8"] = convert_model;
  functions["int8_converter"] = int8_converter;
  functions["layer_quality"] = quality;
  functions["quality_report"] = quality_text;
  functions["load_lora_tensors"] = lora_tensors;
  functions["load_lora_for_merging"] = lora_for_merging;
  functions["merge_lora_into_weight"] = merge_lora;
  functions["merge_multiple_loras"] = merge_loras;
  functions["load_layer_config"] = check_layer_config;
  functions["setup_logging"] = logging;
}

}  // namespace qmill::python
