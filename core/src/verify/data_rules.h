// What readers ask of values: scales that can be multiplied with, codes within their range.
#pragma once

#include "verify/layer_rules.h"

namespace qmill {

// Reads scales and codes of the layers, in parts. Throws Error(cancelled), and what reading throws.
void check_data(const TensorSource& source, const std::vector<MarkedLayer>& layers, Findings& findings, const std::atomic<bool>* cancel);

}  // namespace qmill
