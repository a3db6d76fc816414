#include "readers/raw_markers.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

constexpr std::int64_t kMaxReadBytes = 1 << 20;
constexpr std::string_view kPrefix = "model.diffusion_model.";

// Null with a problem unless `text` is a JSON object.
MarkerJson parse_object(const std::string& text, std::string& problem) {
  try {
    MarkerJson json = parse_json(text);
    if (json.is_object()) return json;
    problem = fmt::format("it is a JSON {}, expected an object", json.type_name());
  } catch (const Error& error) {
    problem = error.message();
  }
  return nullptr;
}

}  // namespace

std::map<std::string, RawMarker> raw_markers(const TensorSource& source) {
  std::map<std::string, RawMarker> markers;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& info = source.tensors()[i];
    if (!info.name.ends_with(kMarkerSuffix)) continue;
    RawMarker marker;
    marker.tensor = i;
    if (info.dtype != DType::u8 || info.shape.size() != 1) {
      marker.problem = fmt::format("it is {} {}, expected U8 with one dimension", dtype_name(info.dtype), info.shape_text());
    } else if (info.bytes() > kMaxReadBytes) {
      marker.problem = fmt::format("it has {} bytes", info.bytes());
    } else {
      marker.text.resize(static_cast<std::size_t>(info.bytes()));
      source.read(i, std::as_writable_bytes(std::span(marker.text)));
      marker.json = parse_object(marker.text, marker.problem);
    }
    markers.emplace(info.name.substr(0, info.name.size() - kMarkerSuffix.size()), std::move(marker));
  }
  return markers;
}

HeaderEntry header_entry(const TensorSource& source) {
  HeaderEntry entry;
  const auto found = source.metadata().find(kHeaderKey);
  if (found == source.metadata().end()) return entry;
  entry.exists = true;
  entry.json = parse_object(found->second, entry.problem);
  if (!entry.problem.empty()) return entry;
  const auto layers = entry.json.find("layers");
  if (layers == entry.json.end() || !layers->is_object()) entry.problem = "it has no object 'layers'";
  return entry;
}

std::string header_name(const HeaderEntry& header, const std::string& base) {
  if (!header.is_usable()) return {};
  const MarkerJson& layers = header.json["layers"];
  if (layers.contains(base)) return base;
  if (base.starts_with(kPrefix) && layers.contains(base.substr(kPrefix.size()))) return base.substr(kPrefix.size());
  return {};
}

LayerTensors::LayerTensors(const TensorSource& source) {
  for (const TensorInfo& tensor : source.tensors()) {
    by_name_.emplace(tensor.name, &tensor);
    if (const std::size_t dot = tensor.name.rfind('.'); dot != std::string::npos)
      by_base_[tensor.name.substr(0, dot)].emplace(tensor.name.substr(dot + 1), &tensor);
  }
}

const LayerTensors::BySuffix& LayerTensors::of(const std::string& base) const {
  static const BySuffix none;
  const auto found = by_base_.find(base);
  return found == by_base_.end() ? none : found->second;
}

const TensorInfo* LayerTensors::weight(const std::string& base) const {
  const BySuffix& tensors = of(base);
  if (const auto weight = tensors.find("weight"); weight != tensors.end()) return weight->second;
  const auto bare = by_name_.find(base);
  return bare == by_name_.end() ? nullptr : bare->second;
}

std::string LayerTensors::layer_of(const std::string& key) const {
  const auto is_there = [&](const std::string& base) { return by_base_.contains(base) || by_name_.contains(base); };
  std::string prefixed = std::string(kPrefix) + key;
  return !is_there(key) && is_there(prefixed) ? prefixed : key;
}

}  // namespace qmill
