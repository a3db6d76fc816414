// Formats of plugins, with a guard around every call: what they throw becomes an Error that names them.
#pragma once

#include <qmill/coded_format.h>

#include <memory>

namespace qmill {

// The same format in the same role (stored, writable, coded). Asks it for what is constant, its info and its grid, now. Throws Error(plugin)
// for a grid that is none.
std::unique_ptr<const StoredFormat> guarded_format(std::unique_ptr<const StoredFormat> format);

}  // namespace qmill
