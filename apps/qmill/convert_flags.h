// The flags of convert and plan, and what they say.
#pragma once

#include "arguments.h"

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

namespace qmill::app {

// The host's filters and the options of its quantizers are flags, too.
std::vector<Flag> convert_flags(const Host& host);

// Throws Error(usage) that names the flag; Error(io, input) for the layer configuration.
ConvertOptions convert_options(const Arguments& arguments, const Host& host);

}  // namespace qmill::app
