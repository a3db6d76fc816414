// Whether a file is a whole shared library of this machine, from its bytes alone.
#pragma once

#include <qmill/file_reader.h>

#include <string>

namespace qmill {

// What is wrong with it, or empty. Bounded reads; offsets in the file are not trusted. Throws Error(io).
std::string library_problem(const FileReader& reader);

}  // namespace qmill
