// Writes a quantized model as a plain one.
#pragma once

#include <qmill/core/convert.h>
#include <qmill/core/stored_layers.h>

namespace qmill {

struct DequantizeOptions {
  std::filesystem::path input;
  std::filesystem::path output;
  DType dtype = DType::bf16;  // of the decoded layers: bf16, f16 or f32; the other tensors stay as they are
  RunOptions run;
};

struct DequantizeReport {
  std::vector<StoredLayerEntry> layers;  // as they were stored
  ConvertReport run;
};

// Publishes options.output, or throws and leaves nothing there. Throws Error(input) for a model without a quantized layer,
// Error(unsupported) for a layer that no format decodes, Error(numeric) with the count for values that are not finite or beyond the range
// of f16 or bf16, Error(usage) for a destination that is an input, or exists and may not be overwritten. Errors name the file.
QMILL_CORE_API DequantizeReport dequantize(const Host& host, const DequantizeOptions& options, const RunHooks& hooks = {});

// <stem>_<dtype>.safetensors, in the folder of the input.
QMILL_CORE_API std::filesystem::path default_dequantized(const DequantizeOptions& options);

}  // namespace qmill
