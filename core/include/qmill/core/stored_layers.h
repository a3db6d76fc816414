// What a file holds, quantized or not: its layers, and how they are stored.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <string>
#include <vector>

namespace qmill {

// A matrix in a file.
struct StoredLayerEntry {
  StoredLayerInfo info;
  const StoredFormat* format = nullptr;  // null: plain values, or a format that no plugin knows
  Layout layout;
  FormatLabel label;  // of plain values: their type; of an unknown format: the name in its marker
};

// Whether its values are codes that a format decodes.
QMILL_CORE_API bool is_quantized(const StoredLayerEntry& layer);

// Reads markers, no other data. Throws Error(input) for a layer whose marker and tensors contradict each other, or whose
// marker and header entry differ (readers would decode it wrongly).
QMILL_CORE_API std::vector<StoredLayerEntry> stored_layers(const Host& host, const TensorSource& source);

}  // namespace qmill
