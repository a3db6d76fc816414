#include <qmill/compat/convert_to_int8.h>

#include "compat/converter_kwargs.h"

#include <qmill/core/conversion.h>
#include <qmill/core/logging.h>
#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/format.h>

namespace qmill {
namespace {

std::optional<Scaling> scaling_named(const char* parameter, const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  const std::optional<Scaling> scaling = parse_scaling(*name);
  if (!scaling) throw Error(ErrorKind::usage, fmt::format("{} is '{}'; allowed: row, tensor, block, axis", parameter, *name));
  return scaling;
}

void require_block_size(const char* parameter, const std::optional<std::int64_t>& size) {
  if (size && *size < 1) throw Error(ErrorKind::usage, fmt::format("{} is {}; allowed: an integer of at least 1", parameter, *size));
}

// What was given, as the command line spells it, for the file's metadata: only what changes the file, and no paths.
class Record {
 public:
  explicit Record(std::map<std::string, std::string>& record) : record_(record) {}

  template <class Value>
  void add(const char* name, const Value& value, const Value& initial) {
    if (value != initial) record_[name] = text(value);
  }
  template <class Value>
  void add(const char* name, const std::optional<Value>& value) {
    if (value) record_[name] = text(*value);
  }

 private:
  static std::string text(bool value) { return value ? "on" : "off"; }
  static std::string text(const std::string& value) { return value; }
  static std::string text(std::int64_t value) { return fmt::to_string(value); }
  static std::string text(double value) { return fmt::to_string(value); }

  std::map<std::string, std::string>& record_;
};

std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

std::map<std::string, std::string> recorded(const ConvertToInt8Options& given) {
  const ConvertToInt8Options initial;
  std::map<std::string, std::string> result;
  Record record(result);
  record.add("comfy-quant", given.comfy_quant, true);
  for (const auto& [name, is_used] : given.filter_flags) record.add(name.c_str(), is_used, false);
  record.add("calib-samples", given.calib_samples, initial.calib_samples);
  record.add("manual-seed", given.seed, initial.seed);
  record.add("fp16", given.fp16, false);
  record.add("fallback", given.fallback);
  record.add("custom-layers", given.custom_layers);
  record.add("exclude-layers", given.exclude_layers);
  record.add("custom-type", given.custom_type);
  record.add("custom-block-size", given.custom_block_size);
  record.add("custom-scaling-mode", given.custom_scaling_mode);
  record.add("custom-simple", given.custom_simple, false);
  record.add("custom-heur", given.custom_heur, false);
  record.add("fallback-block-size", given.fallback_block_size);
  record.add("fallback-simple", given.fallback_simple, false);
  record.add("full-precision-matrix-mult", given.full_precision_matrix_mult, false);
  record.add("heur", given.skip_inefficient_layers, false);
  record.add("input-scale", given.include_input_scale, false);
  record.add("no-learned-rounding", given.no_learned_rounding, false);
  if (given.layer_config) result["layer-config"] = given.layer_config->origin.empty() ? "given" : file_name(given.layer_config->origin);
  record.add("fullmatch", given.layer_config_fullmatch, false);
  record.add("smoothquant", given.smoothquant, false);
  record.add("smoothquant-alpha", given.smoothquant_alpha, initial.smoothquant_alpha);
  if (given.calibration_data_path) result["calibration-data"] = file_name(*given.calibration_data_path);
  if (given.calibration_lora_path) result["calibration-lora"] = file_name(*given.calibration_lora_path);
  record.add("gptq-actorder", given.gptq_actorder, initial.gptq_actorder);
  record.add("quip-actorder", given.quip_actorder, initial.quip_actorder);
  record.add("quip-hadamard", given.quip_hadamard, initial.quip_hadamard);
  record.add("quip-seed", given.quip_seed);
  record.add("quip-store-transformed", given.quip_store_transformed, false);
  record.add("quip-requant-scheme", given.quip_requant_scheme, initial.quip_requant_scheme);
  record.add("quip-requant-tensor-per-row", given.quip_requant_tensor_per_row, true);
  std::string loras;
  for (const std::string& path : given.merge_lora_paths) loras += (loras.empty() ? "" : ",") + file_name(path);
  if (!loras.empty()) result["merge-loras"] = loras;
  if (given.merge_lora_path) result["merge-lora"] = file_name(*given.merge_lora_path);
  record.add("merge-lora-scale", given.merge_lora_scale, initial.merge_lora_scale);
  record.add("merge-lora-dampen", given.merge_lora_dampen, true);
  for (const auto& [name, value] : given.converter_kwargs)
    if (!same_name(name, "threads") && !same_name(name, "device")) result[name] = option_text(value);
  return result;
}

void set_quantizer_options(const ConvertToInt8Options& given, ConvertOptions& options) {
  options.target.quantizer_options["gptq"] = {{"actorder", given.gptq_actorder}, {"fast", given.gptq_fast}, {"turbo", given.gptq_turbo}};
  options.target.quantizer_options["quip"] = {{"actorder", given.quip_actorder},
                                       {"hadamard", given.quip_hadamard},
                                       {"seed", given.quip_seed.value_or(-1)},
                                       {"store_transformed", given.quip_store_transformed},
                                       {"requant_scheme", given.quip_requant_scheme},
                                       {"requant_tensor_per_row", given.quip_requant_tensor_per_row},
                                       {"checkpointed", given.quip_checkpointed},
                                       {"checkpoint_threshold", given.quip_checkpoint_threshold},
                                       {"checkpoint_segments", given.quip_checkpoint_segments}};
}

void set_layers(const ConvertToInt8Options& given, const Host& host, ConvertOptions& options) {
  for (const auto& [name, is_used] : given.filter_flags) {
    if (!same_name(name, "auto")) host.filter(name);  // a name that does not exist is a slip even when it is off
    if (is_used) options.layers.filters.push_back(name);
  }
  options.layers.exclude = given.exclude_layers.value_or("");
  require_block_size("fallback_block_size", given.fallback_block_size);
  require_block_size("custom_block_size", given.custom_block_size);
  options.layers.fallback = {given.fallback.value_or(""), given.fallback_block_size, given.fallback_simple};
  options.layers.custom = {given.custom_layers.value_or(""),
                    given.custom_type.value_or(""),
                    given.custom_block_size,
                    scaling_named("custom_scaling_mode", given.custom_scaling_mode),
                    given.custom_simple,
                    given.custom_heur};
  options.layers.skip_inefficient = given.skip_inefficient_layers;
  options.layers.config = given.layer_config;
  options.layers.config_fullmatch = given.layer_config_fullmatch;
  options.quality_threshold = given.quality_threshold;
}

ConvertOptions options_of(const ConvertToInt8Options& given, const Host& host) {
  if (given.input_file.empty()) throw Error(ErrorKind::usage, "input_file is empty; name the model to convert");
  if (given.output_file.empty()) throw Error(ErrorKind::usage, "output_file is empty; name the file to write");
  ConvertOptions options;
  options.input = given.input_file;
  options.output = given.output_file;
  options.run.overwrite = true;
  options.target.format = given.fp16 ? "fp16" : "int8";
  options.target.storage.naming = given.comfy_quant ? Naming::comfy : Naming::legacy;
  options.target.storage.full_precision_matrix_mult = given.full_precision_matrix_mult;
  options.target.storage.legacy_input_scale = given.include_input_scale;
  options.written.save_quant_metadata = given.save_quant_metadata;
  if (given.no_learned_rounding) options.target.quantizer = plain_rounding().info().name;
  options.seed = given.seed;
  set_quantizer_options(given, options);
  set_layers(given, host, options);
  options.calibration = {given.calibration_data_path.value_or(""), given.calibration_lora_path.value_or("")};
  options.calibration.samples = given.calib_samples;
  options.calibration.smoothquant = given.smoothquant;
  options.calibration.smoothquant_alpha = given.smoothquant_alpha;
  options.merge.paths.assign(given.merge_lora_paths.begin(), given.merge_lora_paths.end());
  if (given.merge_lora_path) options.merge.paths.emplace_back(*given.merge_lora_path);
  options.merge.scale = given.merge_lora_scale;
  options.merge.dampen = given.merge_lora_dampen;
  if (given.streaming_mode) options.run.memory.mode = parse_streaming_mode(*given.streaming_mode);
  options.run.memory.thresholds = streaming_thresholds(given.streaming_thresholds);
  options.run.memory.low_memory = given.low_memory;
  options.run.memory.no_limits = given.no_memory_limits;
  read_converter_kwargs(given.converter_kwargs, host, options);
  options.recorded = recorded(given);
  return options;
}

void log_result(const ConvertToInt8Options& given, const Plan& plan, const ConvertReport& report) {
  const std::vector<LayerQuality> layers = qualities(report);
  if (given.seed < 0) log(LogLevel::normal, fmt::format("the seed is {}", plan.seed));
  for (const std::string& remark : plan.remarks) log(LogLevel::normal, remark);
  for (const LayerReport& layer : report.layers)
    for (const std::string& note : layer.notes) log(LogLevel::verbose, fmt::format("{}: {}", layer.quality.name, note));
  for (const std::string& warning : warnings(plan, report)) log(LogLevel::minimal, "warning: " + warning);
  if (given.report_quality) log(LogLevel::normal, quality_report_text(layers, given.quality_threshold));
  log(LogLevel::normal, fmt::format("'{}' is complete: {} layers by {}, {} bytes, memory {}", given.output_file, layers.size(),
                                    plan.chosen_quantizer, report.bytes_written, plan.memory.summary));
}

}  // namespace

ConvertReport convert_to_int8(const ConvertToInt8Options& options) { return convert_to_int8(default_host(), options); }

ConvertReport convert_to_int8(const Host& host, const ConvertToInt8Options& given, const RunHooks& hooks) {
  Conversion conversion(host, options_of(given, host));
  conversion.check_destination();  // before a heuristic reads everything
  const Plan& plan = conversion.plan(hooks.cancel);
  for (const Decision& decision : plan.decisions) {
    const LogLevel level = decision.is_layer ? LogLevel::verbose : LogLevel::debug;
    if (logs(level)) log(level, fmt::format("{} {} [{}]", action_name(decision.action), decision.source.name, decision.rule));
  }
  const ConvertReport report = conversion.run(hooks);
  log_result(given, plan, report);
  return report;
}

}  // namespace qmill
