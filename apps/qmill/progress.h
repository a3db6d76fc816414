// A bar on a terminal, a line now and then elsewhere; on stderr.
#pragma once

#include <qmill/core/conversion.h>

#include <chrono>

namespace qmill::app {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();  // leaves the line empty

  void update(const Progress& progress);

 private:
  using Clock = std::chrono::steady_clock;
  const bool on_terminal_;
  const Clock::time_point start_;
  Clock::time_point shown_;
  bool is_visible_ = false;
};

// Runs it, with a bar unless less than normal is to be said; Ctrl-C ends it.
ConvertReport run_with_progress(Conversion& conversion);

}  // namespace qmill::app
