#include "run/crew_message.h"

#include "io/json_text.h"

#include <nlohmann/json.hpp>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;
using Kind = CrewMessage::Kind;

Json error_json(const Error& error) {
  return {{"kind", static_cast<int>(error.kind())}, {"message", error.message()}, {"advice", error.advice()}, {"contexts", error.contexts()}};
}

// Throws Json::exception for a number beyond `last`.
template <class Enum>
Enum choice(const Json& json, int last) {
  const int number = json.get<int>();
  if (number < 0 || number > last) throw Json::out_of_range::create(401, "no such choice", &json);
  return static_cast<Enum>(number);
}

Error error_of(const Json& json) {
  Error error(choice<ErrorKind>(json.at("kind"), static_cast<int>(ErrorKind::internal)), json.at("message").get<std::string>(), json.at("advice").get<std::string>());
  for (const Json& context : json.at("contexts")) error.in(context.get<std::string>());
  return error;
}

}  // namespace

std::string crew_text(const CrewMessage& message) {
  Json finished = Json::array();
  for (const FinishedDecision& one : message.finished)
    finished.push_back({{"decision", one.decision}, {"entry", entry_json(one.entry)}, {"warning", one.warning}});
  const Json json = {{"kind", static_cast<int>(message.kind)},
                     {"text", message.text},
                     {"decisions", message.decisions},
                     {"finished", finished},
                     {"error", message.error ? error_json(*message.error) : Json(nullptr)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

CrewMessage parse_crew_message(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    CrewMessage message;
    message.kind = choice<Kind>(json.at("kind"), static_cast<int>(Kind::beat));
    message.text = json.at("text").get<std::string>();
    message.decisions = json.at("decisions").get<std::vector<std::size_t>>();
    for (const Json& one : json.at("finished"))
      message.finished.push_back({one.at("decision").get<std::size_t>(), parse_entry(one.at("entry")), one.at("warning").get<std::string>()});
    if (!json.at("error").is_null()) message.error = error_of(json["error"]);
    if (message.kind != Kind::failed || message.error) return message;
  } catch (const Json::exception&) {
  }
  throw Error(ErrorKind::io, "another rank of the run sent a message that qmill does not understand",
              "start the same version of qmill on all machines");
}

}  // namespace qmill
