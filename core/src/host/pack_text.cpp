#include "host/pack_text.h"

#include <qmill/names.h>

#include <algorithm>
#include <vector>

namespace qmill::pack {

void reject(std::string message) { throw Error(ErrorKind::input, std::move(message)); }

void require_object(const Json& json, std::initializer_list<const char*> known) {
  if (!json.is_object()) reject(fmt::format("{} stands where an object was expected", excerpt(json)));
  const std::vector<std::string> names(known.begin(), known.end());
  for (const auto& [key, value] : json.items())
    if (std::find(names.begin(), names.end(), key) == names.end()) reject(unknown_name_message("key", key, names));
}

const Json& member(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) reject(fmt::format("it has no '{}'", key));
  return *found;
}

std::string text(const Json& json, const char* what, std::size_t max_bytes) {
  if (!json.is_string()) reject(fmt::format("'{}' is {}, expected a text", what, excerpt(json)));
  std::string value = json.get<std::string>();
  if (value.empty()) reject(fmt::format("'{}' is empty", what));
  if (value.size() > max_bytes) reject(fmt::format("'{}' has {} bytes, allowed are {}", what, value.size(), max_bytes));
  if (std::any_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }))
    reject(fmt::format("'{}' has a control character in it", what));
  return value;
}

std::string name_text(const Json& json, const char* what) {
  std::string name = text(json, what, kMaxNameBytes);
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  };
  if (!std::all_of(name.begin(), name.end(), is_allowed))
    reject(fmt::format("'{}' is {}, allowed are letters, digits, '-', '_' and '.'", what, excerpt(json)));
  return name;
}

std::int64_t integer(const Json& json, const char* what, std::int64_t lowest, std::int64_t highest) {
  const bool fits = json.is_number_unsigned() ? json.get<std::uint64_t>() <= static_cast<std::uint64_t>(highest)
                                              : json.is_number_integer() && json.get<std::int64_t>() <= highest;
  if (!fits || json.get<std::int64_t>() < lowest)
    reject(fmt::format("'{}' is {}, expected an integer from {} to {}", what, excerpt(json), lowest, highest));
  return json.get<std::int64_t>();
}

bool flag(const Json& json, const char* what) {
  if (!json.is_boolean()) reject(fmt::format("'{}' is {}, expected true or false", what, excerpt(json)));
  return json.get<bool>();
}

const Json& array(const Json& json, const char* what) {
  if (!json.is_array()) reject(fmt::format("'{}' is {}, expected a list", what, excerpt(json)));
  if (json.empty()) reject(fmt::format("'{}' is an empty list; leave it out", what));
  return json;
}

}  // namespace qmill::pack
