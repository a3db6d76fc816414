#include "options.h"

#include <qmill/error.h>

#include <limits>

namespace qmill::python {
namespace {

void add(const std::string& name, const Json& value, const OptionTable& table, std::vector<GivenOption>& given) {
  if (value.is_null()) return;
  for (const std::string& row : table.rows_for_keyword(name, given)) {
    if (!value.is_array()) {
      given.push_back({row, option_value(name, value)});
      continue;
    }
    for (const Json& each : value) given.push_back({row, option_value(name, each)});
  }
}

}  // namespace

OptionValue option_value(const std::string& name, const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    throw Error(ErrorKind::usage, "`" + name + "` is " + value.dump() + "; allowed: integers below 2^63");
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  throw Error(ErrorKind::usage, "`" + name + "` is " + value.dump() + "; allowed: a boolean, a number, a text, or a list of these");
}

std::vector<GivenOption> given_options(const Json& request, const OptionTable& table) {
  std::vector<GivenOption> given;
  const auto options = request.find("options");
  if (options == request.end()) return given;
  // First those that say which quantizers run: the others are their options.
  for (const bool of_plugins : {false, true})
    for (const auto& [name, value] : options->items()) {
      const OptionRow* row = table.find(name);
      const bool is_own = row != nullptr && !row->is_of_plugins();
      if (is_own != of_plugins) add(name, value, table, given);
    }
  return given;
}

std::optional<LayerConfig> layer_config_of(const Json& request) {
  const auto config = request.find("layer_config");
  if (config == request.end() || config->is_null()) return std::nullopt;
  return parse_layer_config(config->dump());
}

int thread_count(const Call& call) {
  const std::int64_t threads = call.integer("threads", 0);
  if (threads < 0 || threads > 1024)
    throw Error(ErrorKind::usage, "threads is " + std::to_string(threads) + "; allowed: an integer from 0 to 1024");
  return static_cast<int>(threads);
}

}  // namespace qmill::python
