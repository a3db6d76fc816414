#include "progress.h"

#include "shared_run.h"
#include "text.h"

#include <qmill/core/logging.h>
#include <qmill/core/process.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace qmill::app {
namespace {

constexpr std::size_t kBarWidth = 28;

std::string bar(double done) {
  const auto filled = static_cast<std::size_t>(std::clamp(done, 0.0, 1.0) * kBarWidth);
  return fmt::format("[{}{}]", std::string(filled, '#'), std::string(kBarWidth - filled, ' '));
}

}  // namespace

ProgressBar::ProgressBar() : on_terminal_(is_terminal(Stream::error)), start_(Clock::now()), shown_(start_) {}

ProgressBar::~ProgressBar() {
  if (is_visible_) say("\r\x1b[K");
}

void ProgressBar::update(const Progress& progress) {
  using namespace std::chrono_literals;
  const Clock::time_point now = Clock::now();
  if (now - shown_ < (on_terminal_ ? Clock::duration(100ms) : Clock::duration(5s))) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double done = static_cast<double>(progress.bytes_done) / static_cast<double>(std::max<std::uint64_t>(1, progress.bytes));
  const double left = done > 0 ? seconds * (1 - done) / done : 0;
  const std::string text = fmt::format("{}/{} layers, {} of {}, {}/s, {:.0f} s left", progress.layers_done, progress.layers,
                                       bytes_text(progress.bytes_done), bytes_text(progress.bytes),
                                       bytes_text(static_cast<std::uint64_t>(static_cast<double>(progress.bytes_done) / seconds)), left);
  if (!on_terminal_) {
    say(fmt::format("qmill: {}\n", text));
    return;
  }
  say(fmt::format("\r{} {}\x1b[K", bar(done), text));
  std::fflush(stderr);
  is_visible_ = true;
}

ConvertReport run_with_progress(Conversion& conversion) {
  RunHooks hooks;
  hooks.cancel = &watch_interrupts();
  hooks.peers = peers();
  ProgressBar bar;
  if (logs(LogLevel::normal)) hooks.progress = [&](const Progress& progress) { bar.update(progress); };
  return conversion.run(hooks);
}

}  // namespace qmill::app
