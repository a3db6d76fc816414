#include <qmill/core/json.h>

#include "conversion/report_json.h"
#include "io/json_text.h"

#include <qmill/core/architecture.h>
#include <qmill/core/foreign_quantizers.h>
#include <qmill/core/process.h>
#include <qmill/core/stored_layers.h>
#include <qmill/source_details.h>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

Json layer_entry_json(const StoredLayerEntry& layer) {
  Json marker = layer.info.marker.empty() ? Json(nullptr) : Json::parse(layer.info.marker, nullptr, false);
  if (marker.is_discarded()) marker = layer.info.marker;
  return {{"name", layer.info.base},          {"format", layer.label.name},
          {"layout", layer.label.summary},    {"quantized", is_quantized(layer) || !layer.info.marker.empty()},
          {"shape", layer.info.weight.shape}, {"marker", marker}};
}

}  // namespace

std::string inspect_json(const Host& host, const TensorSource& source) {
  const std::optional<Architecture> architecture = recognise(host, source);
  const std::optional<ForeignQuantizer> quantizer = find_foreign_quantizer(source.tensors());
  Json layers = Json::array();
  for (const StoredLayerEntry& layer : stored_layers(host, source)) layers.push_back(layer_entry_json(layer));
  Json tensors = Json::array();
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    const std::string type = stored_type(source, i);
    tensors.push_back({{"name", tensor.name},
                       {"dtype", dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"stored_type", type.empty() ? std::string(dtype_name(tensor.dtype)) : type}});
  }
  Json metadata = Json::object();
  for (const auto& [key, value] : source.metadata()) metadata[key] = value;
  return json_text({{"architecture", architecture ? Json(architecture->name) : Json(nullptr)},
                    {"filter", architecture ? Json(architecture->filter->info().name) : Json(nullptr)},
                    {"quantized_by", quantizer ? Json(quantizer->tool) : Json(nullptr)},
                    {"layers", layers},
                    {"tensors", tensors},
                    {"metadata", metadata}});
}

std::string dequantize_json(const DequantizeOptions& options, const DequantizeReport& report) {
  Json layers = Json::array();
  for (const StoredLayerEntry& layer : report.layers)
    layers.push_back({{"name", layer.info.base}, {"format", layer.label.name}, {"layout", layer.label.summary}});
  return json_text({{"output", options.output.string()},
                    {"output_bytes", report.run.bytes_written},
                    {"dtype", dtype_name(options.dtype)},
                    {"seconds", report.run.seconds},
                    {"peak_memory_bytes", peak_memory_bytes()},
                    {"layers", layers},
                    {"warnings", report.run.warnings}});
}

std::string statistics_json(const StatisticsOptions& options, const StatisticsReport& report) {
  Json layers = Json::array();
  for (const CalibratedRows& layer : report.layers) layers.push_back({{"name", layer.layer}, {"rows", layer.rows}});
  return json_text({{"output", options.output.string()},
                    {"output_bytes", report.bytes_written},
                    {"distinct_inputs", report.distinct},
                    {"layers", layers},
                    {"unmatched", report.unmatched_entries},
                    {"empty", report.empty_entries}});
}

std::string layer_report_json(const LayerReport& report) { return json_text(layer_report(report)); }

}  // namespace qmill
