// What must not be quantized again.
#pragma once

#include <qmill/loader.h>

namespace qmill {

// What shows that a model is quantized, naming the tensor; empty: nothing.
std::string quantization_evidence(const TensorSource& source);

// Matrices of whole numbers that are named as weights: perhaps codes, and nothing says of which kind.
std::vector<std::string> unexplained_codes(const TensorSource& source);

// Throws Error(input) naming the tool if another one quantized the model in a way that no format here decodes.
void refuse_foreign_quantizers(const TensorSource& source);

// Throws that, or Error(input) with the evidence.
void require_plain_source(const TensorSource& source);

}  // namespace qmill
