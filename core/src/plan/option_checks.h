// What options say of each other and of this machine, before anything is read.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// Throws Error(usage) for options that contradict each other or have a value that is not allowed, Error(unsupported) for a device that this
// build has not.
void check_options(const ConvertOptions& options);

// Throws Error(usage) for what is no device, Error(unsupported) for one that this build has not.
void check_device(std::string_view device);

// Options and environment variables that change nothing in this run, and why. Throws Error(usage) for a variable's value.
std::vector<std::string> idle_options(const ConvertOptions& options);

// Options of quantizers that were set and change nothing, because no layer is quantized by one that has them.
std::vector<std::string> idle_quantizer_options(const ConvertOptions& options, const std::vector<Decision>& decisions);

}  // namespace qmill
