// The names that LoRA files have for the layers of a model (docs/filters.md#names-in-loras). Packs of filters have this data.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace qmill {

// Rows of a layer that have a name of their own.
struct LayerPart {
  std::string name;
  std::int64_t columns = 0;  // it has this many times as many rows as the layer has columns; 0: an equal share of what is left
};

// One after the other from the first row on; a single part without `columns` is the whole layer.
struct LayerParts {
  std::string layer;
  std::vector<LayerPart> parts;
  // In the model, the first half of the rows is shift and the second is scale; in the LoRA, scale comes first. Only of layers with twice as
  // many rows as columns.
  bool scale_first = false;
};

// Names below blocks: first of the model, then of LoRAs. A part "*" of a block is a number, the same in both.
struct BlockNames {
  std::vector<std::pair<std::string, std::string>> blocks;  // none: the whole model
  std::vector<LayerParts> layers;                           // by what follows the block; none: all layers have the same names below it
};

struct LoraNames {
  std::vector<std::string> architectures;  // as fingerprints name them
  std::vector<BlockNames> names;
};

}  // namespace qmill
