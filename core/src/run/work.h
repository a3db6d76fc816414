// Which decisions of a plan this process works on, and where it says that they are finished.
#pragma once

#include "run/crew_message.h"

#include <exception>
#include <functional>

namespace qmill {

// Decisions that go to one process, in this order.
struct WorkUnit {
  std::vector<std::size_t> decisions;
  double cost = 0;  // compared with that of others
};

struct WorkStart {
  std::vector<WorkUnit> units;                               // all that is to be done, in the order of the source
  std::function<void(const FinishedDecision&)> on_finished;  // called from one thread at a time
  std::function<void()> store;                               // what was written so far is where other processes see it
  std::function<void(std::exception_ptr)> on_failure;        // of another process
};

class Work {
 public:
  virtual ~Work() = default;

  virtual void begin(WorkStart start) = 0;

  // The decisions that come next, one after the other; empty: none is left, or the run ends. May wait. [the reader]
  virtual std::vector<std::size_t> next() = 0;

  // Its tensors are in the files. [the writer]
  virtual void finished(FinishedDecision finished) = 0;

  // All that next() gave is finished: returns when the others have finished, too. Throws what ended them.
  virtual void complete() = 0;

  // After it, no function of WorkStart is called.
  virtual void stop() = 0;

  // The run has ended, well or with this error. Throws nothing.
  virtual void end(const Error* error) = 0;
};

// That of a run in one process: everything, in the order of the source.
class WholeWork final : public Work {
 public:
  void begin(WorkStart start) override { start_ = std::move(start); }
  std::vector<std::size_t> next() override {
    std::vector<std::size_t> decisions;
    for (const WorkUnit& unit : start_.units) decisions.insert(decisions.end(), unit.decisions.begin(), unit.decisions.end());
    start_.units.clear();
    return decisions;
  }
  void finished(FinishedDecision finished) override { start_.on_finished(finished); }
  void complete() override {}
  void stop() override {}
  void end(const Error*) override {}

 private:
  WorkStart start_;
};

}  // namespace qmill
