#include "conversion/report_json.h"

#include "io/json_text.h"
#include "plan/plan_json.h"
#include "report/quality_json.h"

#include <qmill/core/conversion.h>
#include <qmill/core/process.h>

namespace qmill {

nlohmann::ordered_json layer_report(const LayerReport& layer) {
  nlohmann::ordered_json entry = layer_json(layer.quality);
  entry["quantizer"] = layer.quantizer;
  entry["seconds"] = layer.seconds;
  entry["notes"] = layer.notes;
  if (!layer.statistics.empty()) entry["statistics"] = layer.statistics;
  return entry;
}

std::string report_json(const Plan& plan, const ConvertReport& report) {
  using Json = nlohmann::ordered_json;
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) layers.push_back(layer_report(layer));
  Json json = {{"output", plan.options.output.string()},
               {"output_files", output_files_json(plan)},
               {"output_bytes", report.bytes_written},
               {"input_bytes", report.bytes_read},
               {"seconds", report.seconds},
               {"peak_memory_bytes", peak_memory_bytes()}};
  add_run(json, plan);
  add_means(json, qualities(report));
  json["layers"] = std::move(layers);
  json["warnings"] = warnings(plan, report);
  return json_text(json);
}

}  // namespace qmill
