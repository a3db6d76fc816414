#include <qmill/core/logging.h>

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <utility>

namespace qmill {
namespace {

constexpr std::array<std::pair<std::string_view, LogLevel>, 4> kLevels = {
    {{"DEBUG", LogLevel::debug}, {"VERBOSE", LogLevel::verbose}, {"NORMAL", LogLevel::normal}, {"MINIMAL", LogLevel::minimal}}};

std::atomic<LogLevel> current = LogLevel::normal;

std::mutex sink_mutex;
std::function<void(LogLevel, std::string_view)> sink;  // guarded by sink_mutex

}  // namespace

LogLevel parse_log_level(std::string_view level) {
  for (const auto& [name, value] : kLevels)
    if (name == level) return value;
  throw Error(ErrorKind::usage, fmt::format("the log level is '{}'; allowed: DEBUG, VERBOSE, NORMAL, MINIMAL", level));
}

void setup_logging(std::string_view level) { setup_logging(parse_log_level(level)); }
void setup_logging(LogLevel level) { current = level; }
LogLevel log_level() { return current; }

void set_log_sink(std::function<void(LogLevel, std::string_view)> wanted) {
  const std::lock_guard lock(sink_mutex);
  sink = std::move(wanted);
}

void log(LogLevel level, std::string_view text) {
  if (!logs(level)) return;
  const std::lock_guard lock(sink_mutex);
  if (sink)
    sink(level, text);
  else
    std::fputs(fmt::format("qmill: {}\n", text).c_str(), stderr);  // one call: lines do not mix. A full disk must not end the run
}

}  // namespace qmill
