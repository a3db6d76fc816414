#include <qmill/core/stored_layers.h>

#include "io/json_text.h"
#include "host/guard.h"
#include "readers/raw_markers.h"

#include <qmill/names.h>

#include <algorithm>
#include <map>
#include <set>

namespace qmill {
namespace {

// Markers by layer: tensors, and what the header says. Readers let the header win, so the two must say the same.
std::map<std::string, std::string> read_markers(const TensorSource& source) {
  std::map<std::string, std::string> markers;
  for (const auto& [base, marker] : raw_markers(source)) {
    const TensorInfo& info = source.tensors()[marker.tensor];
    if (info.dtype != DType::u8 || info.shape.size() != 1 || info.bytes() > kMaxMarkerBytes)
      throw Error(ErrorKind::input, fmt::format("it is {} {}, expected U8 with one dimension of at most {}", dtype_name(info.dtype),
                                                info.shape_text(), kMaxMarkerBytes))
          .in(fmt::format("marker '{}'", info.name));
    markers.emplace(base, marker.text);
  }
  const HeaderEntry header = header_entry(source);
  if (!header.exists) return markers;
  if (!header.problem.empty())
    throw Error(ErrorKind::input, fmt::format("the header's '{}' cannot be used: {}", kHeaderKey, header.problem));
  const LayerTensors tensors(source);
  for (const auto& [key, marker] : header.json["layers"].items()) {
    const std::string base = tensors.layer_of(key);
    const auto [tensor, is_new] = markers.emplace(base, marker.dump());
    if (!is_new && nlohmann::json::parse(tensor->second, nullptr, false) != nlohmann::json::parse(marker.dump()))
      throw Error(ErrorKind::input,
                  fmt::format("layer '{}' is marked {} by its tensor and {} by the header", base, tensor->second, marker.dump()));
  }
  return markers;
}

std::string marked_format(const std::string& marker) {
  const nlohmann::json parsed = nlohmann::json::parse(marker, nullptr, false);
  return parsed.is_object() && parsed.contains("format") && parsed["format"].is_string() ? parsed["format"].get<std::string>()
                                                                                         : "no format";
}

void identify(StoredLayerEntry& entry, const std::vector<const StoredFormat*>& formats) {
  for (const StoredFormat* format : formats) {
    const std::optional<Layout> layout =
        guard(format->info().name, "recognise", entry.info.weight.name, [&] { return format->recognise(entry.info); });
    if (!layout) continue;
    entry.format = format;
    entry.layout = *layout;
    entry.label = format->label(*layout);
    return;
  }
  entry.label.name = entry.info.marker.empty() ? std::string(dtype_name(entry.info.weight.dtype)) : marked_format(entry.info.marker);
  entry.label.summary = entry.info.marker.empty() ? entry.label.name : "unknown: " + entry.label.name;
}

}  // namespace

bool is_quantized(const StoredLayerEntry& layer) {
  return layer.format != nullptr && (!layer.info.marker.empty() || dtype_bits(layer.info.weight.dtype) <= 8);
}

std::vector<StoredLayerEntry> stored_layers(const Host& host, const TensorSource& source) {
  const std::map<std::string, std::string> markers = read_markers(source);
  std::map<std::string, std::vector<TensorInfo>> by_base;  // tensors named base + "." + suffix
  std::set<std::string> names;
  for (const TensorInfo& tensor : source.tensors()) names.insert(tensor.name);
  for (const TensorInfo& tensor : source.tensors())
    if (const std::size_t dot = tensor.name.rfind('.'); dot != std::string::npos) by_base[tensor.name.substr(0, dot)].push_back(tensor);

  const std::vector<const StoredFormat*> formats = host.formats();
  std::vector<StoredLayerEntry> entries;
  for (const TensorInfo& tensor : source.tensors()) {
    const std::string base = layer_base(tensor.name);
    const auto marker = markers.find(base);
    // A matrix of a LoRA may have a name without ".weight".
    const bool is_weight = base != tensor.name || (tensor.shape.size() == 2 && !names.contains(base + ".weight"));
    const bool is_marked = marker != markers.end() && is_weight;
    if (!is_marked && (tensor.shape.size() < 2 || base == tensor.name)) continue;
    StoredLayerEntry entry;
    entry.info = {base, tensor, {}, is_marked ? marker->second : ""};
    for (const TensorInfo& other : by_base[base])
      if (other.name != tensor.name) entry.info.others.push_back(other);
    identify(entry, formats);
    entries.push_back(std::move(entry));
  }
  for (const auto& [base, marker] : markers) {
    const auto is_this = [&, &layer = base](const StoredLayerEntry& entry) { return entry.info.base == layer; };
    if (std::none_of(entries.begin(), entries.end(), is_this))
      throw Error(ErrorKind::input, fmt::format("layer '{}' is marked but has no tensor '{}.weight'", base, base),
                  "the file is incomplete, or marked for another model: get it again; qmill verify FILE lists all such layers");
  }
  return entries;
}

}  // namespace qmill
