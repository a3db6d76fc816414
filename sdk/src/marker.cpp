#include "marker.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cstring>

namespace qmill {

nlohmann::json parse_marker(const std::string& text) { return nlohmann::json::parse(text, nullptr, false); }

std::string marked_format(const nlohmann::json& marker) {
  if (!marker.is_object()) return {};
  const auto format = marker.find("format");
  return format != marker.end() && format->is_string() ? format->get<std::string>() : std::string();
}

std::int64_t positive_integer(const nlohmann::json& marker, const char* key, std::string_view base) {
  const auto field = marker.find(key);
  if (field == marker.end() || !field->is_number_integer() || field->get<std::int64_t>() <= 0)
    throw Error(ErrorKind::input, fmt::format("the marker of layer '{}' has no positive integer '{}'", base, key));
  return field->get<std::int64_t>();
}

bool says_true(const nlohmann::json& marker, const char* key) {
  const auto field = marker.find(key);
  return field != marker.end() && field->is_boolean() && field->get<bool>();
}

const nlohmann::json& rotation_fields(const nlohmann::json& marker) {
  const auto params = marker.find("params");
  const bool is_nested = !marker.contains("convrot") && params != marker.end() && params->is_object() && params->contains("convrot");
  return is_nested ? *params : marker;
}

StoredTensor marker_tensor(const std::string& name, const std::string& marker) {
  at::Tensor bytes = at::empty({static_cast<std::int64_t>(marker.size())}, at::kByte);
  std::memcpy(bytes.data_ptr(), marker.data(), marker.size());
  return {name, bytes};
}

bool is_rotation_group(std::int64_t group) {
  for (std::int64_t power = 4; power <= 65536; power *= 4)
    if (group == power) return true;
  return false;
}

const TensorInfo* find_other(const StoredLayerInfo& layer, std::string_view suffix) {
  const std::string name = fmt::format("{}.{}", layer.base, suffix);
  for (const TensorInfo& other : layer.others)
    if (other.name == name) return &other;
  return nullptr;
}

Error contradiction(const FormatInfo& format, const StoredLayerInfo& layer, std::string_view name, const TensorInfo* tensor,
                    std::string_view expected) {
  const std::string found =
      tensor == nullptr ? std::string("missing") : fmt::format("{} {}", dtype_name(tensor->dtype), tensor->shape_text());
  return Error(ErrorKind::input,
               fmt::format("layer '{}' is marked {}, and '{}' is {}, expected {}", layer.base, format.name, name, found, expected));
}

}  // namespace qmill
