#include <qmill/core/json.h>

#include "io/json_text.h"

#include <qmill/pattern_filter.h>

#include <set>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;

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

Json quantizer_json(const QuantizerInfo& info) {
  Json options = Json::array();
  for (const OptionSpec& option : info.options)
    options.push_back(
        {{"name", option.name}, {"default", option_text(option.initial)}, {"allowed", option.allowed()}, {"help", option.help}});
  return {{"name", info.name},       {"aliases", info.aliases},         {"summary", info.summary},
          {"formats", info.formats}, {"own_formats", info.own_formats}, {"options", options}};
}

Json fingerprint_json(const Fingerprint& fingerprint) {
  Json dimensions = Json::array();
  for (const TensorDimension& each : fingerprint.dimensions)
    dimensions.push_back({{"tensor", each.tensor}, {"axis", each.axis}, {"equals", each.equals}});
  return {{"name", fingerprint.architecture}, {"order", fingerprint.order}, {"all", fingerprint.all},
          {"none", fingerprint.none},         {"dimensions", dimensions},   {"renamed_by_readers", fingerprint.renamed_by_readers}};
}

Json filter_object(const ModelFilter& filter) {
  Json json = {{"name", filter.info().name}, {"category", filter.info().category}, {"summary", filter.info().summary}};
  if (const auto* patterns = dynamic_cast<const PatternFilter*>(&filter)) {
    json["keep"] = patterns->data().keep;
    json["remove"] = patterns->data().remove;
  }
  const bool is_detected = !filter.fingerprints().empty();
  json["fingerprint"] = is_detected ? filter.fingerprints().front().all : std::vector<std::string>();
  json["architectures"] = Json::array();
  for (const Fingerprint& fingerprint : filter.fingerprints()) json["architectures"].push_back(fingerprint_json(fingerprint));
  return json;
}

}  // namespace

std::string plugins_json(const Host& host) {
  Json list = Json::array();
  for (const PluginCandidate& candidate : host.candidates()) list.push_back(candidate_json(candidate));
  return json_text(list);
}

std::string plugin_json(const Host& host, const PluginCandidate& plugin) {
  Json json = candidate_json(plugin);
  json["version"] = plugin.version;
  json["quantizers"] = Json::array();
  for (const PluginOffer& offer : plugin.offers)
    if (offer.kind == "quantizer" && plugin.status == PluginCandidate::Status::loaded)
      json["quantizers"].push_back(quantizer_json(host.quantizer(offer.name).info()));
  return json_text(json);
}

std::string filters_json(const Host& host) {
  Json list = Json::array();
  for (const ModelFilter* filter : host.filters()) list.push_back(filter_object(*filter));
  return json_text(list);
}

std::string filter_json(const ModelFilter& filter) { return json_text(filter_object(filter)); }

}  // namespace qmill
