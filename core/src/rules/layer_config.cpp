#include <qmill/core/layer_config.h>

#include "io/json_text.h"
#include "io/text_file.h"
#include "io/regex.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/format.h>

#include <set>

namespace qmill {
namespace {

using Json = nlohmann::ordered_json;  // the order of the file decides between equally specific patterns

constexpr std::uint64_t kMaxConfigBytes = 64u << 20;
constexpr std::string_view kPatterns = "layer_patterns";
constexpr std::string_view kDefault = "_default";
constexpr std::string_view kExclusions = "_exclusions";

const std::vector<std::string> kKeys = {"format",    "skip",      "block_size", "scaling_mode", "simple", "full_precision_matrix_mult",
                                        "optimizer", "quantizer", "options"};

[[noreturn]] void reject(std::string_view key, const Json& value, std::string_view allowed) {
  throw Error(ErrorKind::input, fmt::format("'{}' is {}; allowed: {}", key, excerpt(value), allowed));
}

bool boolean(std::string_view key, const Json& value) {
  if (!value.is_boolean()) reject(key, value, "true or false");
  return value.get<bool>();
}

std::string text(std::string_view key, const Json& value, std::string_view allowed) {
  if (!value.is_string() || value.get<std::string>().empty()) reject(key, value, allowed);
  return value.get<std::string>();
}

void require_new(std::set<std::string>& given, const std::string& name) {
  if (!given.insert(name).second) throw Error(ErrorKind::input, fmt::format("'{}' is given twice, with '-' and with '_'", name));
}

std::map<std::string, OptionValue> options(const Json& value) {
  if (!value.is_object()) reject("options", value, "an object of the quantizer's options");
  std::map<std::string, OptionValue> options;
  std::set<std::string> given;
  for (const auto& [name, option] : value.items()) {
    require_new(given, canonical_name(name));
    if (option.is_boolean())
      options[name] = option.get<bool>();
    else if (option.is_number_integer())
      options[name] = option.get<std::int64_t>();
    else if (option.is_number_float())
      options[name] = option.get<double>();
    else if (option.is_string())
      options[name] = option.get<std::string>();
    else
      reject(name, option, "true, false, a number or a text");
  }
  return options;
}

void set_field(LayerChoice& choice, const std::string& key, const Json& value) {
  if (key == "skip")
    choice.skip = boolean(key, value);
  else if (key == "simple")
    choice.simple = boolean(key, value);
  else if (key == "full_precision_matrix_mult")
    choice.full_precision_matrix_mult = boolean(key, value);
  else if (key == "format")
    choice.format = text(key, value, "a format's name");
  else if (key == "options")
    choice.options = options(value);
  else if (key == "optimizer" || key == "quantizer") {
    if (choice.quantizer) throw Error(ErrorKind::input, "'optimizer' and 'quantizer' are the same; give one");
    choice.quantizer = text(key, value, "a quantizer's name");
  } else if (key == "block_size") {
    if (!value.is_number_integer() || value.get<std::int64_t>() < 1) reject(key, value, "an integer of at least 1");
    choice.block_size = value.get<std::int64_t>();
  } else if (key == "scaling_mode") {
    choice.scaling = parse_scaling(text(key, value, "tensor, row, axis, block"));
    if (!choice.scaling) reject(key, value, "tensor, row, axis, block");
  } else {
    throw Error(ErrorKind::input, unknown_name_message("key", key, kKeys));
  }
}

LayerChoice parse_choice(const Json& entry) {
  if (!entry.is_object()) throw Error(ErrorKind::input, fmt::format("it is {}, expected an object", excerpt(entry)));
  LayerChoice choice;
  std::set<std::string> given;
  for (const auto& [key, value] : entry.items()) {
    if (key.starts_with('_')) continue;  // "_shape" of a template is a comment
    const std::string name = canonical_name(key);
    require_new(given, name);
    set_field(choice, name, value);
  }
  if (choice.simple && choice.quantizer && !same_name(*choice.quantizer, plain_rounding().info().name))
    throw Error(ErrorKind::input, fmt::format("'simple' is plain rounding, 'optimizer' is '{}'; give one", *choice.quantizer));
  return choice;
}

LayerPattern parse_pattern(const std::string& pattern, LayerChoice choice) {
  auto regex = std::make_shared<const Regex>(pattern);
  const std::size_t literals = regex->literal_count();
  return {pattern, std::move(regex), literals, std::move(choice)};
}

void parse_exclusions(const Json& exclusions, LayerConfig& config) {
  if (!exclusions.is_array()) reject(kExclusions, exclusions, "a list of patterns");
  for (const Json& pattern : exclusions) {
    LayerChoice skip;
    skip.skip = true;
    config.exclusions.push_back(parse_pattern(text(kExclusions, pattern, "patterns"), skip));
  }
}

void parse_entries(const Json& entries, LayerConfig& config) {
  for (const auto& [pattern, entry] : entries.items()) {
    try {
      if (pattern == kExclusions)
        parse_exclusions(entry, config);
      else if (pattern == kDefault && config.fallback)
        throw Error(ErrorKind::input, "it is there twice: in 'layer_patterns' and beside it");
      else if (pattern == kDefault)
        config.fallback = parse_choice(entry);
      else if (pattern.starts_with('_'))
        continue;  // comments
      else
        config.patterns.push_back(parse_pattern(pattern, parse_choice(entry)));
    } catch (const Error& error) {  // a wrong pattern or name is an error of the file, not of the command line
      throw Error(ErrorKind::input, error.message(), error.advice()).in(fmt::format("layer config entry '{}'", pattern));
    }
  }
}

}  // namespace

LayerConfig parse_layer_config(std::string_view json) {
  const Json parsed = parse_json(json);
  if (!parsed.is_object()) throw Error(ErrorKind::input, fmt::format("the layer config is {}, expected an object", excerpt(parsed)));
  LayerConfig config;
  const auto nested = parsed.find(kPatterns);
  if (nested == parsed.end()) {
    parse_entries(parsed, config);
    return config;
  }
  if (!nested->is_object()) reject(kPatterns, *nested, "an object of patterns");
  for (const auto& [key, value] : parsed.items())
    if (key != kPatterns && !key.starts_with('_'))
      throw Error(ErrorKind::input, fmt::format("'{}' stands beside '{}'; patterns go inside it", key, kPatterns));
  parse_entries(*nested, config);
  Json rest = parsed;
  rest.erase(std::string(kPatterns));
  parse_entries(rest, config);
  return config;
}

LayerConfig load_layer_config(const std::filesystem::path& file) {
  const std::string text = read_text_file(file, kMaxConfigBytes);
  try {
    LayerConfig config = parse_layer_config(text);
    config.origin = file.string();
    return config;
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", file.string()));
  }
}

const LayerPattern* most_specific(const LayerConfig& config, std::string_view base, bool whole) {
  const auto matches = [&](const LayerPattern& pattern) {
    return whole ? pattern.regex->matches_whole(base) : pattern.regex->search(base);
  };
  for (const LayerPattern& exclusion : config.exclusions)
    if (matches(exclusion)) return &exclusion;
  const LayerPattern* best = nullptr;
  for (const LayerPattern& pattern : config.patterns)
    if ((best == nullptr || pattern.literals > best->literals) && matches(pattern)) best = &pattern;
  return best;
}

}  // namespace qmill
