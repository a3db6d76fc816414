#include "plan/plan_json.h"

#include "io/json_text.h"

#include <qmill/core/readers.h>
#include <qmill/names.h>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

Json tensor_json(const TensorInfo& tensor) { return {{"name", tensor.name}, {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}}; }

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
          {"unmatched", account.unmatched_entries},
          {"empty", account.empty_entries}};
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
                     {"unmatched", lora.unmatched},
                     {"for_other_models", lora.for_other_models},
                     {"mismatched", lora.mismatched},
                     {"unaffected", lora.unaffected}});
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

}  // namespace

nlohmann::ordered_json output_files_json(const Plan& plan) {
  Json files = Json::array();
  for (const std::filesystem::path& file : plan.output_files()) files.push_back(file.string());
  return files;
}

void add_run(nlohmann::ordered_json& json, const Plan& plan) {
  json["architecture"] = plan.architecture.empty() ? Json(nullptr) : Json(plan.architecture);
  json["filters"] = plan.filters;
  json["quantizer"] = plan.chosen_quantizer;
  json["calibration"] = calibration_json(plan);
  json["merge"] = merge_json(plan);
  json["seed"] = plan.seed;
  json["source_files"] = Json::array();
  for (const std::filesystem::path& file : plan.source_files) json["source_files"].push_back(file.string());
  json["memory"] = plan.memory.summary;
  json["remarks"] = plan.remarks;
}

std::string Plan::json() const {
  const Plan& plan = *this;
  Json layers = Json::array();
  for (const Decision& decision : plan.decisions) {
    if (!decision.is_layer && decision.action == Action::copy) continue;
    Json outputs = Json::array();
    for (const TensorInfo& tensor : decision.outputs) outputs.push_back(tensor_json(tensor));
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
  Json json = {{"layers", layers}, {"output_bytes", plan.output.bytes()}, {"tensors", plan.output.tensors.size()}};
  json["output_files"] = output_files_json(plan);
  add_run(json, plan);
  const PlanReader reader = reader_of(plan);
  json["comfyui"] = {{"loads", reader.loads ? Json(*reader.loads) : Json(nullptr)}, {"since", reader.since}, {"because", reader.because}};
  json["warnings"] = plan.warnings;
  json["digest"] = digest();
  return json_text(json);
}

}  // namespace qmill
