// Measures the quality of a quantized file against its source.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>
#include <qmill/core/quality.h>

#include <atomic>

namespace qmill {

// For every quantized layer of `quantized`: the source's values minus what a reader decodes, and with `calibration_data` (a file of sample
// rows by layer) the output errors on all its rows. Throws Error(input) when a layer has no counterpart of its shape in `source`, no layer
// is quantized or all are stored in the same way there, or the file has rows for none; Error(unsupported) for formats that are not known.
QMILL_CORE_API std::vector<LayerQuality> compare_models(const Host& host, const TensorSource& quantized, const TensorSource& source, int threads,
                                         const std::atomic<bool>* cancel = nullptr, const std::filesystem::path& calibration_data = {});

}  // namespace qmill
