#include "json_output.h"

#include "help.h"
#include "text.h"

#include <fmt/format.h>

namespace qmill::app {
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
  const auto speak = [](Json& text) { text = as_flags(text.get_ref<const std::string&>()); };
  const auto speak_all = [&](Json& object, const char* key) {
    if (object.contains(key))
      for (Json& text : object[key]) speak(text);
  };
  speak_all(result, "remarks");
  speak_all(result, "warnings");
  if (result.contains("layers") && result["layers"].is_array())
    for (Json& layer : result["layers"]) speak_all(layer, "notes");
  if (result.contains("comfyui")) speak(result["comfyui"]["because"]);
  if (result.contains("readers"))
    for (Json& reader : result["readers"]) speak(reader["because"]);
  if (result.contains("findings"))
    for (Json& finding : result["findings"]) speak(finding["text"]);
  return result;
}

std::string json_text(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

void print_json(const Json& json) { fmt::print("{}", json_text(json)); }

}  // namespace qmill::app
