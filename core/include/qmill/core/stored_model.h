// What a file holds, quantized or not: its layers, how they are stored, and how well, beside their source.
#pragma once

#include <qmill/core/host.h>
#include <qmill/core/quality.h>

#include <atomic>

namespace qmill {

// A matrix in a file.
struct StoredLayerEntry {
  StoredLayerInfo info;
  const Format* format = nullptr;  // null: plain values, or a format that no plugin knows
  Layout layout;
  FormatLabel label;  // of plain values: their type; of an unknown format: the name in its marker
};

// Whether its values are codes that a format decodes.
bool is_quantized(const StoredLayerEntry& layer);

// Reads markers, no other data. Throws Error(input) for a layer whose marker and tensors contradict each other, or whose
// marker and header entry differ (readers would decode it wrongly).
std::vector<StoredLayerEntry> stored_layers(const Host& host, const TensorSource& source);

// For every quantized layer of `quantized`: the source's values minus what a reader decodes, and with `calibration_data` (a file of sample
// rows by layer) the output errors on all its rows. Throws Error(input) when a layer has no counterpart of its shape in `source`, no layer
// is quantized or all are stored in the same way there, or the file has rows for none; Error(unsupported) for formats that are not known.
std::vector<LayerQuality> compare_models(const Host& host, const TensorSource& quantized, const TensorSource& source, int threads,
                                         const std::atomic<bool>* cancel = nullptr, const std::filesystem::path& calibration_data = {});

}  // namespace qmill
