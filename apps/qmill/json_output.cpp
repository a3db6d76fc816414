#include "json_output.h"

#include "help.h"
#include "text.h"

#include <qmill/names.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

#include <set>

namespace qmill::app {
namespace {

Json tensor_json(const TensorInfo& tensor) { return {{"name", tensor.name}, {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}}; }

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

}  // namespace

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
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    tensors.push_back(tensor_json(source.tensors()[i]));
    const std::string type = stored_type(source, i);
    tensors.back()["stored_type"] = type.empty() ? dtype_name(source.tensors()[i].dtype) : type;
  }
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

Json spoken(const std::string& json) {
  Json result = Json::parse(json);
  const auto speak = [](Json& object, const char* key) {
    if (object.contains(key))
      for (Json& text : object[key]) text = as_flags(text.get_ref<const std::string&>());
  };
  speak(result, "remarks");
  speak(result, "warnings");
  if (result.contains("layers"))
    for (Json& layer : result["layers"]) speak(layer, "notes");
  if (result.contains("comfyui")) {
    Json& because = result["comfyui"]["because"];
    because = as_flags(because.get_ref<const std::string&>());
  }
  return result;
}

std::string json_text(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

void print_json(const Json& json) { fmt::print("{}", json_text(json)); }

}  // namespace qmill::app
