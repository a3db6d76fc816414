// converter_kwargs of convert_to_int8: what is no parameter of its own.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

namespace qmill {

// Reads them into `options`, whose other fields are set. Throws Error(usage) that names the argument: unknown, of a wrong type or value, or
// an option of a quantizer that no layer would use.
void read_converter_kwargs(const std::map<std::string, OptionValue>& kwargs, const Host& host, ConvertOptions& options);

}  // namespace qmill
