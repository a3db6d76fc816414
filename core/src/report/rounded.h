// A layer as plain rounding would store it: the yardstick of figures, and what heuristics judge by.
#pragma once

#include "engine/resources.h"
#include "report/row_decoder.h"

#include <qmill/coded_format.h>

namespace qmill {

// Rows of `weight` [N,K] rounded to nearest in this layout, as a reader decodes them.
// Throws Error(numeric) for values that are not finite.
RowDecoder rounded_rows(const TensorInfo& info, const at::Tensor& weight, const CodedFormat& format, const Layout& layout,
                        const RunResources& resources);

}  // namespace qmill
