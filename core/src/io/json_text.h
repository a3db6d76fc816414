// JSON of this program: parsed strictly, in the order of the text.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace qmill {

// Throws Error(input) for what is not JSON, nested absurdly deep, or names a key twice in one object.
nlohmann::ordered_json parse_json(std::string_view text);

// The value as text, cut to what a message can hold.
std::string excerpt(const nlohmann::ordered_json& value);

// Indented, as results are printed; names from files may be any bytes, JSON is UTF-8.
std::string json_text(const nlohmann::ordered_json& json);

}  // namespace qmill
