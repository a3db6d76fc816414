// The JSON that the commands print. Its shape is a contract: docs/json.md.
#pragma once

#include "arguments.h"

#include <qmill/core/stored_layers.h>

#include <nlohmann/json.hpp>

namespace qmill::app {

using Json = nlohmann::ordered_json;

Json inspect_json(const TensorSource& source, const std::vector<StoredLayerEntry>& layers);
Json plugins_json(const Host& host);
Json plugin_json(const Host& host, const PluginCandidate& plugin);  // with the options of its quantizers

Json flags_json(const Command& command);  // --help --json

// What core says as JSON of a plan or a run, its remarks and warnings as a command line spells options.
Json spoken(const std::string& json);

std::string json_text(const Json& json);  // indented; what is not UTF-8 is replaced
void print_json(const Json& json);  // to stdout

}  // namespace qmill::app
