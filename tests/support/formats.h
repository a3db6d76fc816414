// The formats of the SDK by name, for tests.
#pragma once

#include <qmill/coded_format.h>

#include <stdexcept>
#include <string>

namespace qmill::testing {

inline const StoredFormat& stored_format(const std::string& name) {
  for (const StoredFormat* format : builtin_formats())
    if (format->info().name == name) return *format;
  throw std::runtime_error("no format " + name);
}

inline const WritableFormat& writable_format(const std::string& name) { return dynamic_cast<const WritableFormat&>(stored_format(name)); }
inline const CodedFormat& coded_format(const std::string& name) { return dynamic_cast<const CodedFormat&>(stored_format(name)); }

}  // namespace qmill::testing
