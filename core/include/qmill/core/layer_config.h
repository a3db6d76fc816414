// Per-layer choices, from a JSON file. See docs/layer-config.md for its grammar.
#pragma once

#include <qmill/core/export.h>
#include <qmill/storage_options.h>
#include <qmill/options.h>

#include <filesystem>
#include <memory>
#include <optional>

namespace qmill {

class Regex;  // Perl syntax; a match that takes too many steps is an Error, never a hang

// What a rule says of the layers that it selects; what is absent comes from the run's own options.
struct LayerChoice {
  bool skip = false;
  bool simple = false;                   // plain rounding
  std::optional<std::string> format;     // a format's name or alias
  std::optional<std::string> quantizer;  // a quantizer's name or alias
  std::optional<Scaling> scaling;
  std::optional<std::int64_t> block_size;
  std::optional<bool> full_precision_matrix_mult;
  std::map<std::string, OptionValue> options;  // of the quantizer
  std::optional<Rotation> rotation;            // files have no key for it
};

struct LayerPattern {
  std::string text;
  std::shared_ptr<const Regex> regex;
  std::size_t literals = 0;  // characters that every match must contain: the more, the more specific
  LayerChoice choice;
};

struct LayerConfig {
  std::vector<LayerPattern> patterns;    // in the order of the file
  std::vector<LayerPattern> exclusions;  // "_exclusions": skipped, whatever else matches
  std::optional<LayerChoice> fallback;   // "_default": layers that nothing matches
  std::string origin;                    // for messages: the file
};

// Throws Error(input) that names the entry and lists what is allowed; Error(io).
QMILL_CORE_API LayerConfig load_layer_config(const std::filesystem::path& file);
QMILL_CORE_API LayerConfig parse_layer_config(std::string_view json);

// The exclusion, else the most specific pattern, that matches `base` (a name without ".weight"), or null. `whole`: the pattern must match
// all of it.
QMILL_CORE_API const LayerPattern* most_specific(const LayerConfig& config, std::string_view base, bool whole);

}  // namespace qmill
