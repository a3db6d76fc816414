// Checks JSON from a file before a parser builds anything of it. For loaders; quantizers and filters do not need this header.
#pragma once

#include <qmill/export.h>

#include <string_view>

namespace qmill {

// Throws Error(input) that begins with `what` ("the header") for text that is not JSON (with the byte), numbers that are too large, arrays
// and objects nested deeper than `max_depth`, and objects that name a key twice: parsers take one of the two, and programs differ in which.
// Time and memory grow with the text alone. [any-thread]
QMILL_API void check_json(std::string_view text, std::string_view what, int max_depth);

}  // namespace qmill
