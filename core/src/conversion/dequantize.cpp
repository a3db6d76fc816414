#include <qmill/core/dequantize.h>

#include "conversion/default_names.h"

#include <qmill/core/conversion.h>
#include <qmill/core/decoded_source.h>

namespace qmill {

DequantizeReport dequantize(const Host& host, const DequantizeOptions& options, const RunHooks& hooks) {
  ConvertOptions decode;
  decode.input = options.input;
  decode.output = options.output;
  decode.decode_to = options.dtype;
  decode.run = options.run;
  Conversion conversion(host, std::move(decode));
  const ConvertReport report = conversion.run(hooks);
  return {decoded_layers(conversion.source()), report};
}

std::filesystem::path default_dequantized(const DequantizeOptions& options) {
  std::string dtype(dtype_name(options.dtype));
  for (char& c : dtype)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return output_beside(options.input, dtype);
}

}  // namespace qmill
