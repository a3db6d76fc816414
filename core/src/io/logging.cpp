#include <qmill/core/logging.h>

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <utility>

namespace qmill {
namespace {

constexpr std::array<std::pair<std::string_view, LogLevel>, 4> kLevels = {
    {{"DEBUG", LogLevel::debug}, {"VERBOSE", LogLevel::verbose}, {"NORMAL", LogLevel::normal}, {"MINIMAL", LogLevel::minimal}}};

std::atomic<LogLevel> current = LogLevel::normal;

}  // namespace

LogLevel parse_log_level(std::string_view level) {
  for (const auto& [name, value] : kLevels)
    if (name == level) return value;
  throw Error(ErrorKind::usage, fmt::format("the log level is '{}'; allowed: DEBUG, VERBOSE, NORMAL, MINIMAL", level));
}

void setup_logging(std::string_view level) { setup_logging(parse_log_level(level)); }
void setup_logging(LogLevel level) { current = level; }
LogLevel log_level() { return current; }

void log(LogLevel level, std::string_view text) {
  // One call per line: lines of several threads do not mix.
  if (logs(level)) fmt::print(stderr, "{}", fmt::format("qmill: {}\n", text));
}

}  // namespace qmill
