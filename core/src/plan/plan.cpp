#include <qmill/core/plan.h>

#include "calibration/calibration.h"
#include "lora/known_model.h"
#include "lora/merged_values.h"
#include "host/guard.h"
#include "model/layers.h"
#include <qmill/core/output_plan.h>
#include "rules/rules.h"
#include "plan/analysis.h"
#include "plan/corrected_biases.h"
#include "plan/decoding_plan.h"
#include "plan/filter_choice.h"
#include "plan/input_files.h"
#include "plan/option_checks.h"
#include "plan/output_metadata.h"
#include "plan/reader_support.h"
#include "model/source_checks.h"
#include "plan/target.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/process.h>
#include <qmill/names.h>
#include <qmill/source_details.h>

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
        rules_(host, options.layers, filters_.filters),
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
    add_source_warnings();
    add_remarks();
    add_calibration_warnings();
    add_merge_warnings();
    plan_.read_data = analysis_.has_read();
    plan_.inputs_identity = identity_of_inputs(source_, options_);
    if (merge_) plan_.inputs_identity += merge_->identity();
    if (calibration_) plan_.inputs_identity += calibration_->identity();
    std::vector<TensorInfo> outputs;
    for (const Decision& decision : plan_.decisions) outputs.insert(outputs.end(), decision.outputs.begin(), decision.outputs.end());
    plan_.output = plan_output(std::move(outputs), output_metadata(source_, options_, plan_));
    return std::move(plan_);
  }

 private:
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

  void add_source_warnings() {
    const std::vector<StoredLayerEntry> layers = decoded_layers(source_);
    if (!layers.empty())
      plan_.warnings.push_back(fmt::format("the source was quantized ({}): what that lost stays lost", formats_text(layers)));
    else if (options_.dequantize_source)
      plan_.warnings.push_back("`dequantize_source` changes nothing: no layer of the source is quantized");
    if (const std::vector<std::string> codes = unexplained_codes(source_); !codes.empty())
      plan_.warnings.push_back(
          fmt::format("{} of whole numbers, which are copied: if they are codes of a quantizer, the model is "
                      "quantized already, and this file is wrong: {}",
                      codes.size() == 1 ? "1 weight is" : fmt::format("{} weights are", codes.size()), first_names(codes)));
    for (const std::filesystem::path& other : files_beside(source_, options_.input))
      plan_.warnings.push_back(
          fmt::format("'{}' lies in the folder and is no part of the model: its index does not name it", other.filename().string()));
  }

  static std::shared_ptr<const Merge> open_merge(const Host& host, const TensorSource& source, const ConvertOptions& options) {
    if (options.merge.paths.empty()) return nullptr;
    const auto open = [&](const std::filesystem::path& path) { return host.open(path); };
    return std::make_shared<const Merge>(open, source, options.merge, known_model(host, source));
  }

  void add_remarks() {
    plan_.remarks = options_.remarks;
    for (std::string& remark : source_remarks(source_)) plan_.remarks.push_back(std::move(remark));
    for (std::string& remark : idle_options(options_)) plan_.remarks.push_back(std::move(remark));
    if (plan_.calibration_account && plan_.calibration_account->unused_rows != 0)
      plan_.remarks.push_back(fmt::format("{} calibration rows are not used: at most {} rows per layer are (`calib_samples`)",
                                          plan_.calibration_account->unused_rows, options_.calibration.samples));
    if (layers_without_input_scale_ != 0)
      plan_.warnings.push_back(fmt::format("the calibration data have no input_scale for {} quantized layers: their .scale_input is 1",
                                           layers_without_input_scale_));
  }

  static bool stores_input_scale(const Decision& decision) {
    const std::string name = layer_base(decision.source.name) + ".scale_input";
    return std::any_of(decision.outputs.begin(), decision.outputs.end(), [&](const TensorInfo& tensor) { return tensor.name == name; });
  }

  void add_calibration_warnings() {
    if (!calibration_) return;
    const CalibrationAccount& account = calibration_->account();
    if (const std::vector<std::string>& entries = account.unmatched_entries; !entries.empty()) {
      const std::string names = first_names(entries);
      plan_.warnings.push_back(entries.size() == 1
                                   ? fmt::format("1 calibration entry matches no layer of the model: {}", names)
                                   : fmt::format("{} calibration entries match no layer of the model: {}", entries.size(), names));
    }
    if (const std::vector<std::string>& entries = account.empty_entries; !entries.empty())
      plan_.warnings.push_back(
          fmt::format("{} with 0 rows count{} as no data: {}",
                      entries.size() == 1 ? "1 calibration entry" : fmt::format("{} calibration entries", entries.size()),
                      entries.size() == 1 ? "s" : "", first_names(entries)));
    if (!account.with_channels.empty())
      plan_.warnings.push_back(
          fmt::format("of {} only channel statistics are known, such as '{}': nothing uses them without `smoothquant` "
                      "and channel_max",
                      account.with_channels.size() == 1 ? "1 layer" : fmt::format("{} layers", account.with_channels.size()),
                      account.with_channels.front()));
    if (options_.calibration.smoothquant && account.smoothed.empty())
      plan_.warnings.push_back(
          "`smoothquant` changes nothing: no layer has channel_max without rows or a Hessian, which weight the columns "
          "already");
  }

  void add_merge_warnings() {
    if (!merge_) return;
    for (const MergedLora& lora : plan_.merge_account->files) add_warnings_of(lora);
    std::vector<std::string> removed;
    for (const Decision& decision : plan_.decisions)
      if (decision.action == Action::remove && !decision.merges.empty()) removed.push_back(decision.source.name);
    if (!removed.empty())
      plan_.warnings.push_back(fmt::format("{} that LoRAs change {} removed: {}", counted(removed.size(), "tensor"),
                                           removed.size() == 1 ? "is" : "are", first_names(removed)));
  }

  void add_warnings_of(const MergedLora& lora) {
    const auto left_out = [&](const std::vector<std::string>& names, const char* noun, const char* why) {
      if (!names.empty())
        plan_.warnings.push_back(fmt::format("{} of '{}' {} {}: {}", counted(names.size(), noun), lora.file.string(),
                                             names.size() == 1 ? "is" : "are", why, first_names(names)));
    };
    left_out(lora.unmatched, "tensor", "of no layer of the model and not merged");
    left_out(lora.mismatched, "layer", "of another size than in the model and not merged");
    if (lora.unaffected == 0) return;
    const std::string what = lora.unaffected == lora.layers.size() ? "changes nothing"
                                                                   : fmt::format("leaves {} unchanged", counted(lora.unaffected, "layer"));
    plan_.warnings.push_back(fmt::format("'{}' {}: its {} is 0", lora.file.string(), what, lora.strength == 0 ? "strength" : "alpha"));
  }

  static std::string counted(std::size_t count, const char* noun) { return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s"); }

  // "'a', 'b', 'c' and 2 more"
  static std::string first_names(const std::vector<std::string>& names) {
    constexpr std::size_t kNamed = 3;
    std::string text;
    for (std::size_t i = 0; i < std::min(kNamed, names.size()); ++i) text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
    if (names.size() > kNamed) text += fmt::format(" and {} more", names.size() - kNamed);
    return text;
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
  int layers = 0;
  for (const Decision& decision : plan.decisions)
    if (decision.is_layer) ++layers, ++rules[decision.rule];
  std::string why = fmt::format("{} tensor{}, {} layer{}", plan.decisions.size(), plan.decisions.size() == 1 ? "" : "s", layers, layers == 1 ? "" : "s");
  for (const auto& [rule, count] : rules) why += fmt::format(", {} kept by {}", count, rule);
  const auto by_target = [](const Decision& decision) { return decision.is_layer && decision.rule == "target"; };
  if (const auto unread = std::find_if(plan.decisions.begin(), plan.decisions.end(), by_target); unread != plan.decisions.end())
    throw Error(ErrorKind::input, fmt::format("0 layers selected ({}): {}", why, unread->reason), "`target any` quantizes it for other readers");
  throw Error(ErrorKind::input, fmt::format("0 layers selected ({})", why),
              "a layer is a floating matrix named *.weight; `dry_run` shows which rule keeps it");
}

std::string layer_config_template(const TensorSource& source) {
  nlohmann::ordered_json patterns = nlohmann::ordered_json::object();
  for (const TensorInfo& tensor : source.tensors())
    if (is_layer(tensor))
      patterns["^" + escape_regex(layer_base(tensor.name)) + "$"] = {{"format", "int8"}, {"skip", false}, {"_shape", tensor.shape}};
  return nlohmann::ordered_json{{"layer_patterns", patterns}}.dump(2) + "\n";
}

}  // namespace qmill
