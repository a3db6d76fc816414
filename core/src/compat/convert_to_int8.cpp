#include <qmill/compat/convert_to_int8.h>

#include <qmill/core/conversion.h>
#include <qmill/core/logging.h>
#include <qmill/core/option_table.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

namespace qmill {
namespace {

// The parameters as options of the table; what has the table's default is not given.
class Given {
 public:
  explicit Given(const OptionTable& table) : table_(table) {}

  // `documented` is the parameter's default: with it, a table that lacks the option (its plugin is not installed) is no matter.
  template <class Value>
  void add(const char* name, const Value& value, const Value& documented) {
    const OptionRow* row = table_.find(name);
    if (row == nullptr ? value == documented : row->has_default && row->spec.initial == OptionValue(value)) return;
    options_.push_back({name, value});
  }
  template <class Value>
  void add(const char* name, const std::optional<Value>& value) {
    if (value) options_.push_back({name, *value});
  }
  void add(const std::string& name, const OptionValue& value) { options_.push_back({name, value}); }

  const std::vector<GivenOption>& options() const { return options_; }

 private:
  const OptionTable& table_;
  std::vector<GivenOption> options_;
};

void add_layers(const ConvertToInt8Options& given, const Host& host, Given& options) {
  for (const auto& [name, is_used] : given.filter_flags) {
    if (!is_reserved_filter_name(name)) host.filter(name);  // a name that does not exist is a slip even when it is off
    if (is_used) options.add("filter", name);
  }
  options.add("exclude_layers", given.exclude_layers);
  options.add("fallback", given.fallback);
  options.add("fallback_block_size", given.fallback_block_size);
  options.add("fallback_simple", given.fallback_simple, false);
  options.add("custom_layers", given.custom_layers);
  options.add("custom_type", given.custom_type);
  options.add("custom_block_size", given.custom_block_size);
  options.add("custom_scaling_mode", given.custom_scaling_mode);
  options.add("custom_simple", given.custom_simple, false);
  options.add("custom_heur", given.custom_heur, false);
  options.add("heur", given.skip_inefficient_layers, false);
  options.add("fullmatch", given.layer_config_fullmatch, false);
  options.add("quality_threshold", given.quality_threshold, 30.0);
}

void add_inputs(const ConvertToInt8Options& given, Given& options) {
  options.add("calib_samples", given.calib_samples, std::int64_t{6144});
  options.add("calibration_data", given.calibration_data_path);
  options.add("calibration_lora", given.calibration_lora_path);
  options.add("smoothquant", given.smoothquant, false);
  options.add("smoothquant_alpha", given.smoothquant_alpha, 0.5);
  for (const std::string& path : given.merge_lora_paths) options.add("merge_loras", OptionValue(path));
  options.add("merge_lora", given.merge_lora_path);
  options.add("merge_lora_scale", given.merge_lora_scale, 1.0);
  options.add("merge_lora_dampen", given.merge_lora_dampen, true);
}

void add_quantizers(const ConvertToInt8Options& given, Given& options) {
  options.add("manual_seed", given.seed, std::int64_t{0});
  options.add("no_learned_rounding", given.no_learned_rounding, false);
  options.add("gptq_actorder", given.gptq_actorder, false);
  options.add("gptq_fast", given.gptq_fast, true);
  options.add("gptq_turbo", given.gptq_turbo, false);
  options.add("quip_actorder", given.quip_actorder, true);
  options.add("quip_hadamard", given.quip_hadamard, true);
  options.add("quip_seed", given.quip_seed);
  options.add("quip_store_transformed", given.quip_store_transformed, false);
  options.add("quip_requant_scheme", given.quip_requant_scheme, std::string("tensor"));
  options.add("quip_requant_tensor_per_row", given.quip_requant_tensor_per_row, true);
  options.add("quip_checkpointed", given.quip_checkpointed, false);
  options.add("quip_checkpoint_threshold", given.quip_checkpoint_threshold, std::int64_t{8192});
  options.add("quip_checkpoint_segments", given.quip_checkpoint_segments, std::int64_t{4});
}

void add_run(const ConvertToInt8Options& given, Given& options) {
  options.add("input", OptionValue(given.input_file));
  options.add("output", OptionValue(given.output_file));
  options.add("overwrite", OptionValue(true));
  options.add("comfy_quant", given.comfy_quant, true);
  options.add("save_quant_metadata", given.save_quant_metadata, true);
  options.add("full_precision_matrix_mult", given.full_precision_matrix_mult, false);
  options.add("input_scale", given.include_input_scale, false);
  options.add("fp16", given.fp16, false);
  options.add("low_memory", given.low_memory, false);
  options.add("no_memory_limits", given.no_memory_limits, false);
  options.add("streaming_mode", given.streaming_mode);
  streaming_thresholds(given.streaming_thresholds);  // checks the names of the steps
  for (const auto& [step, limit] : given.streaming_thresholds)
    if (limit) options.add(fmt::format("stream_{}_threshold", step), OptionValue(*limit));
}

ConvertOptions options_of(const ConvertToInt8Options& given, const Host& host) {
  if (given.input_file.empty()) throw Error(ErrorKind::usage, "input_file is empty; name the model to convert");
  if (given.output_file.empty()) throw Error(ErrorKind::usage, "output_file is empty; name the file to write");
  const OptionTable table(host, given.layer_config);
  Given options(table);
  add_run(given, options);
  add_quantizers(given, options);
  add_layers(given, host, options);
  add_inputs(given, options);
  // First those that say which quantizers run, whose options the others are.
  for (const bool of_plugins : {false, true})
    for (const auto& [name, value] : given.converter_kwargs) {
      const OptionRow* row = table.find(name);
      const bool is_own = row != nullptr && !row->is_of_plugins();
      if (is_own == of_plugins) continue;
      for (const std::string& found : table.rows_for_keyword(name, options.options())) options.add(found, value);
    }
  return table.read(options.options());
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

ConvertReport convert_to_int8(const Host& host, const ConvertToInt8Options& given, const RunHooks& hooks, std::string* json) {
  Conversion conversion(host, options_of(given, host));
  conversion.check_destination();  // before a heuristic reads everything
  const Plan& plan = conversion.plan(hooks.cancel);
  for (const Decision& decision : plan.decisions) {
    const LogLevel level = decision.is_layer ? LogLevel::verbose : LogLevel::debug;
    if (logs(level)) log(level, fmt::format("{} {} [{}]", action_name(decision.action), decision.source.name, decision.rule));
  }
  const ConvertReport report = conversion.run(hooks);
  log_result(given, plan, report);
  if (json != nullptr) *json = report_json(plan, report);
  return report;
}

}  // namespace qmill
