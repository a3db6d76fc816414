// What must not be quantized again.
#pragma once

#include <qmill/loader.h>

namespace qmill {

// What shows that a model is quantized, naming the tensor; empty: nothing.
std::string quantization_evidence(const TensorSource& source);

// Throws Error(input) with that evidence.
void require_plain_source(const TensorSource& source);

}  // namespace qmill
