// Layers by whose width readers tell one model from another. They look at the stored shape, before anything is decoded:
// a packed weight there shows half its columns, and the model is taken for another one.
#pragma once

#include <span>
#include <string_view>

namespace qmill {

struct DetectionLayer {
  std::string_view pattern;  // as in segments_match
  std::string_view models;   // whose detection reads it
  bool reads_columns = true;
  bool reads_rows = false;
};

std::span<const DetectionLayer> detection_layers();

enum class Side { rows, columns };

// The first entry that matches the name of a weight, at any depth below prefixes, and of which this side is read; null: its size decides
// nothing, and a weight that is stored with another is safe.
const DetectionLayer* find_detection_layer(std::string_view weight_name, Side side);

}  // namespace qmill
