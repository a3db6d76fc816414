// The flags of convert and plan: the table of options as a command line spells it, and what is only of the command.
#pragma once

#include "arguments.h"

#include <qmill/core/option_table.h>

namespace qmill::app {

// With topics and values for help and completion.
std::vector<Flag> convert_flags(const Host& host);

// Throws Error(usage) that names the option; Error(io, input) for the layer configuration.
ConvertOptions convert_options(const Arguments& arguments, const Host& host);

}  // namespace qmill::app
