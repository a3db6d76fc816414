#include "plan/output_metadata.h"

#include <qmill/names.h>
#include <qmill/version.h>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace qmill {
namespace {

// Names of files may be any bytes, JSON is UTF-8.
std::string as_utf8(const std::string& text) {
  return nlohmann::json::parse(nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)).get<std::string>();
}

}  // namespace

std::map<std::string, std::string> output_metadata(const TensorSource& source, const ConvertOptions& options, const Plan& plan) {
  std::map<std::string, std::string> metadata = source.metadata();
  metadata.erase("_quantization_metadata");
  metadata["qmill.version"] = QMILL_VERSION;
  metadata["qmill.source"] = as_utf8(options.input.filename().string());
  metadata["qmill.seed"] = std::to_string(plan.seed);
  metadata["qmill.quantizer"] = plan.chosen_quantizer;
  // What "auto" became, which the options do not say.
  const auto is_automatic = [](const std::string& name) { return same_name(name, kAutomaticFilter); };
  if (std::any_of(options.layers.filters.begin(), options.layers.filters.end(), is_automatic))
    metadata["qmill.filters"] = nlohmann::json(plan.filters).dump();
  metadata["qmill.options"] = nlohmann::json(options.recorded).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);

  nlohmann::ordered_json layers = nlohmann::ordered_json::object();
  for (const Decision& decision : plan.decisions)
    if (!decision.label.marker.empty() && decision.action == Action::quantize)
      layers[layer_base(decision.source.name)] = nlohmann::ordered_json::parse(decision.label.marker);
  if (options.written.save_quant_metadata && !layers.empty())
    metadata["_quantization_metadata"] = nlohmann::ordered_json{{"format_version", "1.0"}, {"layers", layers}}.dump();
  return metadata;
}

std::map<std::string, std::string> dequantized_metadata(const TensorSource& source, const std::filesystem::path& input, DType dtype) {
  std::map<std::string, std::string> metadata = source.metadata();
  metadata["qmill.version"] = QMILL_VERSION;
  metadata["qmill.source"] = as_utf8(input.filename().string());
  metadata["qmill.dequantized"] = dtype_name(dtype);
  return metadata;
}

}  // namespace qmill
