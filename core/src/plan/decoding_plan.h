// The plan of a conversion that quantizes nothing: a decoded source, written as a plain model.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// `source` is decoded (decoded_source.h). Throws Error(usage) for a type other than bf16, f16 and f32, Error(input) when no layer of the source
// is quantized.
Plan make_decoding_plan(const TensorSource& source, const ConvertOptions& options);

}  // namespace qmill
