// The command for tests in Python: one call per command line, in the process that has loaded LibTorch already.
#include "run_words.h"

#include <qmill/core/logging.h>

#include <array>
#include <csignal>
#include <cstdio>

// What main() does, but for the end of the process. Results are written when this returns.
extern "C" __attribute__((visibility("default"))) int qmill_run(int argc, char** argv) {
  constexpr std::array kWatched = {SIGINT, SIGTERM, SIGHUP};  // the command takes these from Python, and would keep them
  std::array<void (*)(int), kWatched.size()> handlers = {};
  for (std::size_t i = 0; i < kWatched.size(); ++i) {
    handlers[i] = std::signal(kWatched[i], SIG_DFL);
    std::signal(kWatched[i], handlers[i]);
  }
  qmill::setup_logging(qmill::LogLevel::normal);  // as in a process that begins
  const int status = qmill::app::run_words({argv, argv + argc});
  std::fflush(stdout);
  std::fflush(stderr);
  for (std::size_t i = 0; i < kWatched.size(); ++i) std::signal(kWatched[i], handlers[i]);
  return status;
}
