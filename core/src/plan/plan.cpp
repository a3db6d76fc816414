#include <qmill/core/plan.h>

#include <qmill/core/output_plan.h>
#include "calibration/calibration.h"
#include "host/guard.h"
#include "lora/known_model.h"
#include "lora/merged_values.h"
#include "model/layers.h"
#include "model/source_checks.h"
#include "plan/analysis.h"
#include "plan/corrected_biases.h"
#include "plan/decoding_plan.h"
#include "plan/filter_choice.h"
#include "plan/input_files.h"
#include "plan/option_checks.h"
#include "plan/output_metadata.h"
#include "plan/output_names.h"
#include "plan/plan_warnings.h"
#include "plan/reader_support.h"
#include "plan/target.h"
#include "plan/words.h"
#include "rules/rules.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/process.h>
#include <qmill/names.h>
#include <qmill/shards.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <random>

namespace qmill {
namespace {

class Planner {
 public:
  Planner(const Host& host, const TensorSource& source, const ConvertOptions& options, const std::atomic<bool>* cancel)
      : source_(plain(source, options)),
        options_(options),
        cancel_(cancel),
        seed_(options.seed >= 0 ? options.seed : draw_seed()),
        calibration_(open_calibration(host, source, options, seed_)),
        merge_(open_merge(host, source, options)),
        values_(values_of(source, merge_)),
        resolver_(host, options.target, calibration_.get()),
        filters_(choose_filters(host, source, options, resolver_.run_format().info().takes_any_shape)),
        readers_(source, filters_.architecture, options.target_reader),
        rules_(host, options.layers, filters_.filters, [this](const TensorInfo& tensor) { return readers_.takes_table(tensor); }),
        analysis_(*values_, options, cancel) {
    if (options.layers.config) check_config(*options.layers.config);
  }

  Plan make() {
    require_known_cast();
    plan_.options = options_;
    plan_.chosen_quantizer = resolver_.run_quantizer();
    plan_.chosen_because = resolver_.why();
    plan_.seed = seed_;
    plan_.source_files = source_.files();
    plan_.memory = memory_policy(options_.run.memory, bytes_of(source_), free_memory_bytes());
    plan_.calibration = calibration_;
    if (calibration_) plan_.calibration_account = calibration_->account();
    plan_.merge = merge_;
    if (merge_) plan_.merge_account = merge_->account();
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      if (cancel_ != nullptr && *cancel_) throw Error(ErrorKind::cancelled, "interrupted");
      try {
        plan_.decisions.push_back(decide(i));
      } catch (Error& error) {
        throw in_source(error.in(fmt::format("tensor '{}'", source_.tensors()[i].name)));
      }
    }
    if (calibration_ && options_.calibration.bias_correction)
      plan_corrected_biases(plan_.decisions, [&](const TensorInfo& weight) { return calibration_->knows_mean(weight); });
    try {
      if (options_.target_reader == TargetReader::comfyui) require_stable_names(filters_, plan_.decisions);
    } catch (Error& error) {
      throw in_source(error);
    }
    plan_.warnings = rules_.unused(filters_.automatic);
    for (std::string& hint : filter_hints(filters_, options_, plan_.decisions)) plan_.warnings.push_back(std::move(hint));
    if (filters_.architecture) plan_.architecture = filters_.architecture->name;
    plan_.filters = filters_.names();
    plan_.not_loaded = readers_.not_loaded();
    plan_.not_judged = readers_.not_judged();
    for (std::string& warning : readers_.warnings()) plan_.warnings.push_back(std::move(warning));
    for (std::string& warning : idle_quantizer_options(options_, plan_.decisions)) plan_.warnings.push_back(std::move(warning));
    add_source_warnings(plan_, source_);
    add_remarks(plan_, source_);
    if (std::string left = readers_.tables_left(); !left.empty()) plan_.remarks.push_back(std::move(left));
    if (layers_without_input_scale_ != 0)
      plan_.warnings.push_back(fmt::format("the calibration data have no input_scale for {} quantized layers: their .scale_input is 1",
                                           layers_without_input_scale_));
    add_calibration_warnings(plan_, source_);
    add_merge_warnings(plan_);
    plan_.read_data = analysis_.has_read();
    plan_.inputs_identity = identity_of_inputs(source_, options_);
    plan_.inputs = planned_inputs(source_, options_);
    if (merge_) plan_.inputs_identity += merge_->identity();
    if (calibration_) plan_.inputs_identity += calibration_->identity();
    plan_files();
    return std::move(plan_);
  }

 private:
  void plan_files() {
    std::vector<std::vector<TensorInfo>> outputs;
    for (const Decision& decision : plan_.decisions) outputs.push_back(decision.outputs);
    const std::optional<std::uint64_t> limit = options_.written.max_shard_bytes;
    plan_.output = plan_shards(outputs, output_metadata(source_, options_, plan_), limit, kMaxShards);
    for (const PlannedFile& file : plan_.output.files)
      if (limit && file.bytes > *limit)
        plan_.warnings.push_back(fmt::format("a file of {} bytes is larger than `max_shard_size`: a layer is never divided", file.bytes));
  }

  // First of all: what else is wrong with a quantized model follows from that.
  static const TensorSource& plain(const TensorSource& source, const ConvertOptions& options) {
    try {
      require_plain_source(source);
    } catch (Error& error) {
      throw error.in(fmt::format("'{}'", options.input.string()));
    }
    return source;
  }

  Error& in_source(Error& error) const { return error.in(fmt::format("'{}'", options_.input.string())); }

  // An entry that says something impossible is an error even if it matches nothing.
  void check_config(const LayerConfig& config) const {
    const auto check = [&](const std::string& entry, const LayerChoice& choice) {
      try {
        resolver_.resolve(choice, {"any.weight", DType::bf16, {256, 256}});
      } catch (const Error& error) {
        Error located(ErrorKind::input, error.message(), error.advice());
        located.in(fmt::format("layer config entry '{}'", entry));
        throw config.origin.empty() ? located : located.in(fmt::format("'{}'", config.origin));
      }
    };
    for (const LayerPattern& pattern : config.patterns) check(pattern.text, pattern.choice);
    if (config.fallback) check("_default", *config.fallback);
  }

  Decision decide(std::size_t index) {
    Decision decision;
    decision.source = source_.tensors()[index];
    decision.values = values_->tensors()[index];
    decision.source_index = index;
    decision.is_layer = is_layer(decision.source);
    const Verdict verdict = rules_.decide(decision.source);
    decision.rule = verdict.rule;
    decision.reason = verdict.reason;
    if (merge_) decision.merges = merge_->files_of(index);
    if (verdict.treatment == Treatment::remove) {
      decision.action = Action::remove;
    } else if (verdict.treatment == Treatment::keep) {
      keep(decision);
    } else if (decision.source.elements() == 0) {
      keep(decision, decision.is_layer ? "empty" : "not_a_layer", decision.source.shape_text());
    } else if (decision.is_layer || casts_whole_model(verdict, decision.source)) {
      quantize(decision, verdict);
    } else {
      keep(decision, "not_a_layer", "");
    }
    return decision;
  }

  // The primary quantizer fp16 takes every floating tensor of two or more dimensions, convolutions too.
  bool casts_whole_model(const Verdict& verdict, const TensorInfo& tensor) const {
    return verdict.rule == "primary" && resolver_.run_format().info().takes_any_shape && tensor.shape.size() >= 2 &&
           is_floating(tensor.dtype);
  }

  void quantize(Decision& decision, const Verdict& verdict) {
    const std::optional<float> input_scale =
        options_.calibration.static_activations ? calibration_->input_scale(decision.source) : std::nullopt;
    ResolvedTarget resolved;
    try {
      resolved = resolver_.resolve(verdict.choice, decision.source, input_scale.value_or(1.0f));
    } catch (Error& error) {
      throw error.in(verdict.reason.empty() ? fmt::format("rule {}", verdict.rule)
                                            : fmt::format("rule {} '{}'", verdict.rule, verdict.reason));
    }
    decision.quantizer = resolved.quantizer;
    decision.target = std::move(resolved.target);
    const std::string& name = decision.quantizer->info().name;
    decision.label = decision.target.format->label(decision.target.layout);
    decision.action = Action::quantize;
    decision.outputs = guard(name, "plan", "", [&] { return decision.quantizer->plan(decision.values, decision.target); });
    if (decision.outputs.empty() || decision.outputs.front().name != decision.source.name)
      throw Error(ErrorKind::plugin, fmt::format("plugin '{}' plans no tensor '{}'", name, decision.source.name));
    if (options_.calibration.static_activations && !input_scale && stores_input_scale(decision)) ++layers_without_input_scale_;
    if (decision.outputs == std::vector<TensorInfo>{decision.source}) return keep(decision, verdict.rule, "is stored so already");
    if (std::string reason = readers_.keeps(decision); !reason.empty()) return keep(decision, "target", std::move(reason));
    if (!verdict.heuristic) return;
    if (const std::string reason = analysis_.inefficient(decision, resolved.wanted_scaling); !reason.empty())
      keep(decision, "heuristic", reason);
  }

  void keep(Decision& decision, std::string rule, std::string reason) {
    decision.rule = std::move(rule);
    decision.reason = std::move(reason);
    keep(decision);
  }

  void keep(Decision& decision) {
    const bool casts = options_.written.keep_dtype && is_floating(decision.source.dtype) && decision.source.dtype != *options_.written.keep_dtype;
    decision.action = casts ? Action::cast : decision.merges.empty() ? Action::copy : Action::merge;
    decision.outputs = {decision.source};
    if (casts) decision.outputs.front().dtype = *options_.written.keep_dtype;
  }

  void require_known_cast() const {
    const std::optional<DType>& dtype = options_.written.keep_dtype;
    if (dtype && *dtype != DType::f32 && *dtype != DType::bf16 && *dtype != DType::f16)
      throw Error(ErrorKind::usage, fmt::format("`keep_dtype` is {}; allowed: f32, bf16, f16", dtype_name(*dtype)));
  }

  static std::int64_t draw_seed() { return static_cast<std::int64_t>(std::random_device()()); }

  static std::shared_ptr<const Calibration> open_calibration(const Host& host, const TensorSource& source, const ConvertOptions& options,
                                                             std::int64_t seed) {
    const CalibrationOptions& calibration = options.calibration;
    if (calibration.data.empty() && calibration.lora.empty() && !calibration.smoothquant) return nullptr;
    return std::make_shared<const Calibration>(host, source, calibration, seed);
  }

  static std::shared_ptr<const Merge> open_merge(const Host& host, const TensorSource& source, const ConvertOptions& options) {
    if (options.merge.paths.empty()) return nullptr;
    const auto open = [&](const std::filesystem::path& path) { return host.open(path); };
    return std::make_shared<const Merge>(open, source, options.merge, known_model(host, source));
  }

  static bool stores_input_scale(const Decision& decision) {
    const std::string name = layer_base(decision.source.name) + ".scale_input";
    return std::any_of(decision.outputs.begin(), decision.outputs.end(), [&](const TensorInfo& tensor) { return tensor.name == name; });
  }

  const TensorSource& source_;
  const ConvertOptions& options_;
  const std::atomic<bool>* cancel_;
  const std::int64_t seed_;
  const std::shared_ptr<const Calibration> calibration_;
  const std::shared_ptr<const Merge> merge_;
  const std::unique_ptr<ValueSource> values_;
  TargetResolver resolver_;
  const FilterChoice filters_;
  ReaderSupport readers_;
  Rules rules_;
  Analysis analysis_;
  std::size_t layers_without_input_scale_ = 0;
  Plan plan_;
};

}  // namespace

std::string_view action_name(Action action) {
  switch (action) {
    case Action::quantize:
      return "quantize";
    case Action::correct:
      return "correct";
    case Action::cast:
      return "cast";
    case Action::copy:
      return "copy";
    case Action::merge:
      return "merge";
    case Action::remove:
      return "remove";
  }
  return "copy";
}

std::vector<std::filesystem::path> Plan::output_files() const {
  if (!output.has_shards()) return {options.output};
  std::vector<std::filesystem::path> files = shard_files(options.output, output.files.size());
  files.push_back(index_of(options.output));
  return files;
}

std::size_t Plan::count(Action action) const {
  return static_cast<std::size_t>(
      std::count_if(decisions.begin(), decisions.end(), [&](const Decision& decision) { return decision.action == action; }));
}

Plan make_plan(const Host& host, const TensorSource& source, const ConvertOptions& options, const std::atomic<bool>* cancel) {
  if (cancel != nullptr && *cancel) throw Error(ErrorKind::cancelled, "interrupted");
  if (options.decode_to) return make_decoding_plan(source, options);
  check_options(options);
  return Planner(host, source, options, cancel).make();
}

void require_selection(const Plan& plan) {
  if (plan.options.decode_to || plan.count(Action::quantize) != 0) return;
  std::map<std::string, int> rules;
  std::size_t layers = 0;
  for (const Decision& decision : plan.decisions)
    if (decision.is_layer) ++layers, ++rules[decision.rule];
  std::string why = fmt::format("{}, {}", counted(plan.decisions.size(), "tensor"), counted(layers, "layer"));
  for (const auto& [rule, count] : rules) why += fmt::format(", {} kept by {}", count, rule);
  const auto by_target = [](const Decision& decision) { return decision.is_layer && decision.rule == "target"; };
  if (const auto unread = std::find_if(plan.decisions.begin(), plan.decisions.end(), by_target); unread != plan.decisions.end())
    throw Error(ErrorKind::input, fmt::format("0 layers selected ({}): {}", why, unread->reason),
                "`target any` quantizes it for other readers");
  throw Error(ErrorKind::input, fmt::format("0 layers selected ({})", why),
              "a layer is a floating matrix named *.weight; the plan shows which rule keeps it");
}

std::string layer_config_template(const TensorSource& source, std::string_view format) {
  nlohmann::ordered_json patterns = nlohmann::ordered_json::object();
  for (const TensorInfo& tensor : source.tensors())
    if (is_layer(tensor))
      patterns["^" + escape_regex(layer_base(tensor.name)) + "$"] = {{"format", format}, {"skip", false}, {"_shape", tensor.shape}};
  return nlohmann::ordered_json{{"layer_patterns", patterns}}.dump(2) + "\n";
}

}  // namespace qmill
