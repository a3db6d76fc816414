// The JSON that the commands print. Its shape is a contract: docs/json.md.
#pragma once

#include "arguments.h"

#include <nlohmann/json.hpp>

namespace qmill::app {

using Json = nlohmann::ordered_json;

Json flags_json(const Command& command);  // --help --json

// What core says as JSON, with options in its texts as a command line spells them.
Json spoken(const std::string& json);

std::string json_text(const Json& json);  // indented; what is not UTF-8 is replaced
void print_json(const Json& json);  // to stdout

}  // namespace qmill::app
