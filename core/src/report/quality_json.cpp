#include "report/quality_json.h"

#include "io/json_text.h"

#include <cmath>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN and no infinity.
Json number(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(nullptr); }

}  // namespace

nlohmann::ordered_json layer_json(const LayerQuality& layer) {
  if (!layer.is_measured) return {{"name", layer.name}, {"format", layer.format}, {"layout", layer.layout}, {"measured", false}};
  Json json = {{"name", layer.name},       {"format", layer.format},           {"layout", layer.layout},
               {"mse", number(layer.mse)}, {"sqnr_db", number(layer.sqnr_db)}, {"max_error", number(layer.max_error)}};
  if (!layer.output_error) return json;
  json["output_error"] = number(layer.output_error);
  json["rounding_output_error"] = number(layer.rounding_output_error);
  json["output_rows"] = layer.output_rows;
  json["judged_by"] = judgment(layer) == Judgment::outputs ? "outputs" : "weights";
  return json;
}

void add_means(nlohmann::ordered_json& json, const std::vector<LayerQuality>& layers) {
  const QualitySummary summary = summarize(layers, 0);
  json["mean_sqnr_db"] = number(summary.mean_sqnr_db);
  json["mean_output_error"] = number(summary.mean_output_error);
  json["mean_rounding_output_error"] = number(summary.mean_rounding_output_error);
}

std::string quality_json(const std::vector<LayerQuality>& layers) {
  Json list = Json::array();
  for (const LayerQuality& layer : layers) list.push_back(layer_json(layer));
  Json json = Json::object();
  json["layers"] = std::move(list);
  add_means(json, layers);
  return json_text(json);
}

}  // namespace qmill
