#include "io/json_text.h"

#include <qmill/json_check.h>

namespace qmill {

nlohmann::ordered_json parse_json(std::string_view text) {
  constexpr int kMaxDepth = 32;
  check_json(text, "it", kMaxDepth);
  return nlohmann::ordered_json::parse(text);
}

std::string excerpt(const nlohmann::ordered_json& value) {
  constexpr std::size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace qmill
