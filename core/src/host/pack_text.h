// Values in the JSON of a pack, checked: what they throw says what was found and what was expected.
#pragma once

#include "io/json_text.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <initializer_list>
#include <string>
#include <utility>

namespace qmill::pack {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxNameBytes = 64;
constexpr std::size_t kMaxPatternBytes = 256;

// Throws Error(input).
[[noreturn]] void reject(std::string message);

// Adds to the message of what is thrown inside where it is.
template <class Function>
auto located(const std::string& where, Function&& function) {
  try {
    return std::forward<Function>(function)();
  } catch (const Error& error) {
    reject(fmt::format("{}: {}", where, error.message()));
  }
}

void require_object(const Json& json, std::initializer_list<const char*> known);
const Json& member(const Json& object, const char* key);
std::string text(const Json& json, const char* what, std::size_t max_bytes);

// As for all plugins: letters, digits, '-', '_' and '.'.
std::string name_text(const Json& json, const char* what);

std::int64_t integer(const Json& json, const char* what, std::int64_t lowest, std::int64_t highest);
bool flag(const Json& json, const char* what);

// Throws for an empty one.
const Json& array(const Json& json, const char* what);

}  // namespace qmill::pack
