#include <qmill/core/plan.h>

#include "../calibration/calibration.h"
#include "../plugin_host/guard.h"
#include "../publish/output_plan.h"
#include "../rules/rules.h"
#include "analysis.h"
#include "corrected_biases.h"
#include "output_metadata.h"
#include "source_checks.h"
#include "target.h"

#include <qmill/names.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <random>

namespace qmill {
namespace {

class Planner {
 public:
  Planner(const Host& host, const TensorSource& source, const ConvertOptions& options)
      : source_(source),
        options_(options),
        seed_(options.seed >= 0 ? options.seed : draw_seed()),
        calibration_(open_calibration(host, source, options, seed_)),
        rules_(host, options),
        resolver_(host, options, calibration_.get()),
        analysis_(source, options) {
    if (options.layer_config) check_config(*options.layer_config);
  }

  Plan make() {
    try {
      require_plain_source(source_);
    } catch (Error& error) {
      throw in_source(error);
    }
    require_known_cast();
    plan_.chosen_quantizer = resolver_.run_quantizer();
    plan_.chosen_because = resolver_.why();
    plan_.seed = seed_;
    plan_.calibration = calibration_;
    if (calibration_) plan_.calibration_account = calibration_->account();
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      try {
        plan_.decisions.push_back(decide(i));
      } catch (Error& error) {
        throw in_source(error.in(fmt::format("tensor '{}'", source_.tensors()[i].name)));
      }
    }
    if (calibration_ && options_.calibration.bias_correction)
      plan_corrected_biases(plan_.decisions, [&](const TensorInfo& weight) { return calibration_->knows_mean(weight); });
    plan_.warnings = rules_.unused();
    add_calibration_warnings();
    plan_.read_data = analysis_.has_read();
    std::vector<TensorInfo> outputs;
    for (const Decision& decision : plan_.decisions) outputs.insert(outputs.end(), decision.outputs.begin(), decision.outputs.end());
    plan_.output = plan_output(std::move(outputs), output_metadata(source_, options_, plan_));
    return std::move(plan_);
  }

 private:
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
    decision.source_index = index;
    decision.is_layer = is_layer(decision.source);
    const Verdict verdict = rules_.decide(decision.source);
    decision.rule = verdict.rule;
    decision.reason = verdict.reason;
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
    ResolvedTarget resolved;
    try {
      resolved = resolver_.resolve(verdict.choice, decision.source);
    } catch (Error& error) {
      throw error.in(verdict.reason.empty() ? fmt::format("rule {}", verdict.rule)
                                            : fmt::format("rule {} '{}'", verdict.rule, verdict.reason));
    }
    decision.quantizer = resolved.quantizer;
    decision.target = std::move(resolved.target);
    const std::string& name = decision.quantizer->info().name;
    decision.label = decision.target.format->label(decision.target.layout);
    decision.action = Action::quantize;
    decision.outputs = guard(name, "plan", "", [&] { return decision.quantizer->plan(decision.source, decision.target); });
    if (decision.outputs.empty() || decision.outputs.front().name != decision.source.name)
      throw Error(ErrorKind::plugin, fmt::format("plugin '{}' plans no tensor '{}'", name, decision.source.name));
    if (decision.outputs == std::vector<TensorInfo>{decision.source}) return keep(decision, verdict.rule, "is stored so already");
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
    const bool casts = options_.keep_dtype && is_floating(decision.source.dtype) && decision.source.dtype != *options_.keep_dtype;
    decision.action = casts ? Action::cast : Action::copy;
    decision.outputs = {decision.source};
    if (casts) decision.outputs.front().dtype = *options_.keep_dtype;
  }

  void require_known_cast() const {
    const std::optional<DType>& dtype = options_.keep_dtype;
    if (dtype && *dtype != DType::f32 && *dtype != DType::bf16 && *dtype != DType::f16)
      throw Error(ErrorKind::usage, fmt::format("--keep-dtype is {}; allowed: f32, bf16, f16", dtype_name(*dtype)));
  }

  static std::int64_t draw_seed() { return static_cast<std::int64_t>(std::random_device()()); }

  static std::shared_ptr<const Calibration> open_calibration(const Host& host, const TensorSource& source, const ConvertOptions& options,
                                                             std::int64_t seed) {
    const CalibrationOptions& calibration = options.calibration;
    if (calibration.data.empty() && calibration.lora.empty() && !calibration.smoothquant) return nullptr;
    return std::make_shared<const Calibration>(host, source, calibration, seed);
  }

  void add_calibration_warnings() {
    if (!calibration_) return;
    const CalibrationAccount& account = calibration_->account();
    if (const std::vector<std::string>& entries = account.unmatched_entries; !entries.empty()) {
      constexpr std::size_t kNamed = 3;
      std::string names;
      for (std::size_t i = 0; i < std::min(kNamed, entries.size()); ++i) names += fmt::format("{}'{}'", i == 0 ? "" : ", ", entries[i]);
      if (entries.size() > kNamed) names += fmt::format(" and {} more", entries.size() - kNamed);
      plan_.warnings.push_back(entries.size() == 1
                                   ? fmt::format("1 calibration entry is of no layer of the model: {}", names)
                                   : fmt::format("{} calibration entries are of no layer of the model: {}", entries.size(), names));
    }
    if (!account.with_channels.empty())
      plan_.warnings.push_back(
          fmt::format("of {} only channel statistics are known, such as '{}': nothing uses them without --smoothquant "
                      "and channel_max",
                      account.with_channels.size() == 1 ? "1 layer" : fmt::format("{} layers", account.with_channels.size()),
                      account.with_channels.front()));
    if (options_.calibration.smoothquant && account.smoothed.empty())
      plan_.warnings.push_back(
          "--smoothquant changes nothing: no layer has channel_max without rows or a Hessian, which weight the columns "
          "already");
  }

  const TensorSource& source_;
  const ConvertOptions& options_;
  const std::int64_t seed_;
  const std::shared_ptr<const Calibration> calibration_;
  Rules rules_;
  TargetResolver resolver_;
  Analysis analysis_;
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
    case Action::remove:
      return "remove";
  }
  return "copy";
}

std::size_t Plan::count(Action action) const {
  return static_cast<std::size_t>(
      std::count_if(decisions.begin(), decisions.end(), [&](const Decision& decision) { return decision.action == action; }));
}

Plan make_plan(const Host& host, const TensorSource& source, const ConvertOptions& options) {
  return Planner(host, source, options).make();
}

void require_selection(const Plan& plan) {
  if (plan.count(Action::quantize) != 0) return;
  std::map<std::string, int> rules;
  int layers = 0;
  for (const Decision& decision : plan.decisions)
    if (decision.is_layer) ++layers, ++rules[decision.rule];
  std::string why = fmt::format("{} tensors, {} layers", plan.decisions.size(), layers);
  for (const auto& [rule, count] : rules) why += fmt::format(", {} kept by {}", count, rule);
  throw Error(ErrorKind::input, fmt::format("0 layers selected ({})", why),
              "a layer is a floating matrix named *.weight; --dry-run shows which rule keeps it");
}

std::string layer_config_template(const TensorSource& source) {
  nlohmann::ordered_json patterns = nlohmann::ordered_json::object();
  for (const TensorInfo& tensor : source.tensors())
    if (is_layer(tensor))
      patterns["^" + escape_regex(layer_base(tensor.name)) + "$"] = {{"format", "int8"}, {"skip", false}, {"_shape", tensor.shape}};
  return nlohmann::ordered_json{{"layer_patterns", patterns}}.dump(2) + "\n";
}

std::filesystem::path default_output(const Host& host, const ConvertOptions& options) {
  std::filesystem::path input = options.input;
  if (!input.has_filename()) input = input.parent_path();  // "folder/"
  std::string stem = input.filename().string();
  for (const std::string_view suffix : {".safetensors.index.json", ".safetensors"})
    if (stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  const bool is_mixed =
      !options.filters.empty() || !options.custom.pattern.empty() || !options.exclude_layers.empty() || options.layer_config;
  const TargetResolver run(host, options);
  std::string format = run.usual_format().info().name;
  if (run.usual_scaling() != Scaling::row && run.usual_format().grid() != nullptr)
    format += fmt::format("_{}", scaling_name(run.usual_scaling()));
  return input.parent_path() /
         fmt::format("{}_{}_{}{}.safetensors", stem, canonical_name(options.quantizer), format, is_mixed ? "_mixed" : "");
}

}  // namespace qmill
