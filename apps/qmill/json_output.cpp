#include "json_output.h"

#include "help.h"
#include "summary.h"

#include <qmill/core/process.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <cmath>
#include <set>

namespace qmill::app {
namespace {

// JSON has no NaN and no infinity.
Json number(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(nullptr); }

Json tensor_json(const TensorInfo& tensor) { return {{"name", tensor.name}, {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}}; }

Json layer_json(const LayerQuality& layer) {
  Json json = {{"name", layer.name},       {"format", layer.format},           {"layout", layer.layout},
               {"mse", number(layer.mse)}, {"sqnr_db", number(layer.sqnr_db)}, {"max_error", number(layer.max_error)}};
  if (!layer.output_error) return json;
  json["output_error"] = number(layer.output_error);
  json["rounding_output_error"] = number(layer.rounding_output_error);
  json["output_rows"] = layer.output_rows;
  json["judged_by"] = judgment(layer) == Judgment::outputs ? "outputs" : "weights";
  return json;
}

void add_means(Json& json, const std::vector<LayerQuality>& layers) {
  const QualitySummary summary = summarize(layers, 0);
  json["mean_sqnr_db"] = number(summary.mean_sqnr_db);
  json["mean_output_error"] = number(summary.mean_output_error);
  json["mean_rounding_output_error"] = number(summary.mean_rounding_output_error);
}

Json candidate_json(const PluginCandidate& candidate) {
  std::set<std::string> kinds;
  Json offers = Json::array();
  for (const PluginOffer& offer : candidate.offers) {
    kinds.insert(offer.kind);
    offers.push_back({{"kind", offer.kind}, {"name", offer.name}});
  }
  std::string kind;
  for (const std::string& each : kinds) kind += (kind.empty() ? "" : ",") + each;
  return {{"name", candidate.name},          {"kind", kind},
          {"file", candidate.file.string()}, {"status", plugin_status_name(candidate.status)},
          {"reason", candidate.reason},      {"offers", offers}};
}

Json calibration_json(const Plan& plan) {
  if (!plan.calibration_account) return nullptr;
  const CalibrationAccount& account = *plan.calibration_account;
  Json rows = Json::array();
  for (const CalibratedRows& layer : account.with_rows)
    rows.push_back({{"name", layer.layer}, {"rows", layer.rows}, {"kept_apart", layer.kept_apart}});
  return {{"layers", account.layers},
          {"with_rows", rows},
          {"with_hessian", account.with_hessian},
          {"smoothed", account.smoothed},
          {"guided_by_lora", account.guided_by_lora},
          {"with_channels", account.with_channels},
          {"without", account.without},
          {"unmatched", account.unmatched_entries}};
}

Json merge_json(const Plan& plan) {
  if (!plan.merge_account) return nullptr;
  Json files = Json::array();
  for (const MergedLora& lora : plan.merge_account->files)
    files.push_back({{"file", lora.file.string()},
                     {"strength", lora.strength},
                     {"layers", lora.layers},
                     {"kinds", lora.kinds},
                     {"alpha", lora.alpha},
                     {"unmatched", lora.unmatched}});
  return {{"scale", plan.merge_account->scale}, {"dampened", plan.merge_account->dampened}, {"files", files}};
}

// The LoRAs that change a tensor, as the files are named in merge_json.
Json merged_json(const Plan& plan, const Decision& decision) {
  Json files = Json::array();
  for (const std::size_t number : decision.merges) files.push_back(plan.merge_account->files[number].file.string());
  return files;
}

// Of the quantizer, that are not at their default.
Json options_json(const Options& options) {
  Json json = Json::object();
  for (const auto& [name, value] : options.changed()) std::visit([&, &key = name](const auto& held) { json[key] = held; }, value);
  return json;
}

// What a dry run and a run say of the whole alike.
void add_run(Json& json, const Plan& plan) {
  json["architecture"] = plan.architecture.empty() ? Json(nullptr) : Json(plan.architecture);
  json["filters"] = plan.filters;
  json["quantizer"] = plan.chosen_quantizer;
  json["calibration"] = calibration_json(plan);
  json["merge"] = merge_json(plan);
  json["seed"] = plan.seed;
  json["memory"] = plan.memory.summary;
  json["remarks"] = plan.remarks;
}

}  // namespace

Json plan_json(const Plan& plan) {
  Json layers = Json::array();
  for (const Decision& decision : plan.decisions) {
    if (!decision.is_layer && decision.action == Action::copy) continue;
    Json outputs = Json::array();
    for (const TensorInfo& output : decision.outputs) outputs.push_back(tensor_json(output));
    const bool is_quantized = decision.action == Action::quantize;
    layers.push_back({{"name", layer_base(decision.source.name)},
                      {"action", action_name(decision.action)},
                      {"rule", decision.rule},
                      {"reason", decision.reason},
                      {"quantizer", is_quantized ? Json(decision.quantizer->info().name) : Json(nullptr)},
                      {"format", is_quantized ? Json(decision.label.name) : Json(nullptr)},
                      {"layout", is_quantized ? Json(decision.label.summary) : Json(nullptr)},
                      {"options", is_quantized ? options_json(decision.target.options) : Json::object()},
                      {"note", is_quantized ? decision.target.layout.note : ""},
                      {"merged", merged_json(plan, decision)},
                      {"outputs", outputs}});
  }
  Json json = {{"layers", layers}, {"output_bytes", plan.output.file_bytes}, {"tensors", plan.output.tensors.size()}};
  add_run(json, plan);
  json["warnings"] = plan.warnings;
  return json;
}

Json quality_json(const std::vector<LayerQuality>& layers) {
  Json list = Json::array();
  for (const LayerQuality& layer : layers) list.push_back(layer_json(layer));
  Json json = Json::object();
  json["layers"] = std::move(list);
  add_means(json, layers);
  return json;
}

Json report_json(const Plan& plan, const ConvertReport& report, const ConvertOptions& options) {
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) {
    Json entry = layer_json(layer.quality);
    entry["quantizer"] = layer.quantizer;
    entry["seconds"] = layer.seconds;
    entry["notes"] = layer.notes;
    if (!layer.statistics.empty()) entry["statistics"] = layer.statistics;
    layers.push_back(std::move(entry));
  }
  Json json = {{"output", options.output.string()},
               {"output_bytes", report.bytes_written},
               {"input_bytes", report.bytes_read},
               {"seconds", report.seconds},
               {"peak_memory_bytes", peak_memory_bytes()}};
  add_run(json, plan);
  add_means(json, qualities(report));
  json["layers"] = std::move(layers);
  json["warnings"] = warnings(plan, report, options);
  return json;
}

Json inspect_json(const TensorSource& source, const std::vector<StoredLayerEntry>& layers) {
  Json layer_list = Json::array();
  for (const StoredLayerEntry& layer : layers) {
    Json marker = layer.info.marker.empty() ? Json(nullptr) : Json::parse(layer.info.marker, nullptr, false);
    if (marker.is_discarded()) marker = layer.info.marker;
    layer_list.push_back({{"name", layer.info.base},
                          {"format", layer.label.name},
                          {"layout", layer.label.summary},
                          {"quantized", is_quantized(layer) || !layer.info.marker.empty()},
                          {"shape", layer.info.weight.shape},
                          {"marker", marker}});
  }
  Json tensors = Json::array();
  for (const TensorInfo& tensor : source.tensors()) tensors.push_back(tensor_json(tensor));
  Json metadata = Json::object();
  for (const auto& [key, value] : source.metadata()) metadata[key] = value;
  return {{"layers", layer_list}, {"tensors", tensors}, {"metadata", metadata}};
}

Json plugins_json(const Host& host) {
  Json list = Json::array();
  for (const PluginCandidate& candidate : host.candidates()) list.push_back(candidate_json(candidate));
  return list;
}

Json plugin_json(const Host& host, const PluginCandidate& plugin) {
  Json json = candidate_json(plugin);
  json["version"] = plugin.version;
  json["quantizers"] = Json::array();
  for (const PluginOffer& offer : plugin.offers) {
    if (offer.kind != "quantizer" || plugin.status != PluginCandidate::Status::loaded) continue;
    const QuantizerInfo& info = host.quantizer(offer.name).info();
    Json options = Json::array();
    for (const OptionSpec& option : info.options)
      options.push_back(
          {{"name", option.name}, {"default", option_text(option.initial)}, {"allowed", option.allowed()}, {"help", option.help}});
    json["quantizers"].push_back({{"name", info.name},
                                  {"aliases", info.aliases},
                                  {"summary", info.summary},
                                  {"formats", info.formats},
                                  {"own_formats", info.own_formats},
                                  {"options", options}});
  }
  return json;
}

Json flags_json(const Command& command) {
  Json flags = Json::array();
  for (const Flag& flag : command.flags)
    flags.push_back({{"name", flag.name},
                     {"letter", flag.letter == 0 ? "" : std::string(1, flag.letter)},
                     {"value", flag.value},
                     {"value_may_be_left_out", !flag.optional_words.empty()},
                     {"default", flag.initial},
                     {"choices", value_choices(command, flag)},
                     {"group", flag.group},
                     {"topics", flag.topics},
                     {"common", flag.is_common},
                     {"several", flag.is_list},
                     {"help", flag.help}});
  return {
      {"command", command.name}, {"purpose", command.purpose}, {"usage", command.usage}, {"examples", command.examples}, {"flags", flags}};
}

void print_json(const Json& json) { fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace)); }

}  // namespace qmill::app
