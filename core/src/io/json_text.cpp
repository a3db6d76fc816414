#include "io/json_text.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <set>
#include <vector>

namespace qmill {

nlohmann::ordered_json parse_json(std::string_view text) {
  using Json = nlohmann::ordered_json;
  constexpr int kMaxDepth = 32;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) throw Error(ErrorKind::input, fmt::format("the JSON is nested deeper than {} levels", kMaxDepth));
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw Error(ErrorKind::input, fmt::format("the JSON names '{}' twice", parsed.get<std::string>()));
    return true;
  };
  // The parser would take a NUL for the end and pass over what follows.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    throw Error(ErrorKind::input, fmt::format("it is not valid JSON at byte {}", nul + 1));
  try {
    return Json::parse(text, check);
  } catch (const Json::parse_error& error) {
    throw Error(ErrorKind::input, fmt::format("it is not valid JSON at byte {}", error.byte));
  } catch (const Json::out_of_range&) {
    throw Error(ErrorKind::input, "the JSON holds a number that is too large");
  }
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
