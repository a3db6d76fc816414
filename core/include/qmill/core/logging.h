// Messages while something runs: on stderr, a line each, beginning with "qmill: ", unless a program takes them. Results are returned,
// never logged.
#pragma once

#include <qmill/core/export.h>

#include <functional>
#include <string_view>

namespace qmill {

enum class LogLevel {
  debug,    // every tensor
  verbose,  // every layer
  normal,   // results and progress
  minimal,  // warnings
};

// DEBUG, VERBOSE, NORMAL or MINIMAL, for the whole process; at first it is NORMAL. Throws Error(usage) that lists them. [any-thread]
QMILL_CORE_API void setup_logging(std::string_view level);
QMILL_CORE_API void setup_logging(LogLevel level);

QMILL_CORE_API LogLevel parse_log_level(std::string_view level);
QMILL_CORE_API LogLevel log_level();
inline bool logs(LogLevel level) { return level >= log_level(); }

// Writes `text`, without a line end of its own, if logs(level). [any-thread]
QMILL_CORE_API void log(LogLevel level, std::string_view text);

// Where messages go instead of stderr, one call at a time; empty: to stderr. The function must not log. [any-thread]
QMILL_CORE_API void set_log_sink(std::function<void(LogLevel level, std::string_view text)> sink);

}  // namespace qmill
