// Presents a quantized model as the plain model that readers compute from it.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/stored_layers.h>

namespace qmill {

// The same model with every quantized layer as an F32 tensor of its original name and shape, decoded as it is read; its scales, markers and
// the header's entries about quantization are not there. All other tensors and metadata are those of `source`. Holds the stored tensors of
// one layer at a time (of a layer whose rows depend on each other, its values too). Throws Error(input) like stored_layers(),
// Error(unsupported) naming the layer that no format decodes; reading throws Error(numeric) with the count for a layer with values that are
// not finite.
QMILL_CORE_API std::unique_ptr<TensorSource> decoded(const Host& host, std::unique_ptr<TensorSource> source);

// What is decoded as `source` is read: the layers that decoded() decodes, and tensors of types that its loader decodes (these have a label,
// such as "Q4_K", and no format).
QMILL_CORE_API std::vector<StoredLayerEntry> decoded_layers(const TensorSource& source);

// "float8_e4m3fn, 96 layers; int8_tensorwise, 1 layer"
QMILL_CORE_API std::string formats_text(const std::vector<StoredLayerEntry>& layers);

}  // namespace qmill
