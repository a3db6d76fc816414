// What must not be quantized again.
#pragma once

#include <qmill/loader.h>

namespace qmill {

// Throws Error(input) naming the tensor when the source is a quantized file.
void require_plain_source(const TensorSource& source);

}  // namespace qmill
