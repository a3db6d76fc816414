// Which layers are quantized, and what happens to those that are not.
#pragma once

#include <qmill/core/layer_config.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qmill {

// Layers selected by a pattern, and what becomes of them.
struct CustomLayers {
  std::string pattern;  // regex, searched in the full tensor name; empty: none
  std::string type;     // a format's or quantizer's name; required with a pattern
  std::optional<std::int64_t> block_size;
  std::optional<Scaling> scaling;
  bool simple = false;
  bool heuristic = false;  // LayerSelection::skip_inefficient for these
};

struct Fallback {
  std::string type;  // for layers that are excluded; empty: they are kept as they are
  std::optional<std::int64_t> block_size;
  bool simple = false;
};

// How tables of tokens are stored where no choice of a person is about them: filters have no say in it.
enum class Embeddings {
  off,   // as other layers are
  int8,  // with a scale per row, not rotated
  fp8,   // float8_e4m3fn
};

struct LayerSelection {
  std::vector<std::string> filters;  // by name: of a plugin, or one that is_reserved_filter_name()
  CustomLayers custom;
  std::string exclude;  // regex, searched in the full tensor name; empty: none
  Fallback fallback;
  Embeddings embeddings = Embeddings::off;
  bool skip_inefficient = false;  // keep layers that are small, do not divide into blocks, or round badly
  std::optional<LayerConfig> config;
  bool config_fullmatch = false;  // its patterns must match whole names
};

}  // namespace qmill
