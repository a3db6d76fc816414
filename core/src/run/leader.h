// Rank 0 of a run that several processes share: hands out the work, largest first, and hears what is finished.
#pragma once

#include "run/work.h"

#include <qmill/core/peers.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace qmill {

class Leader final : public Work {
 public:
  // Waits until each rank has said the same `digest`, which takes as long as they plan. Throws Error(usage) that names a rank with another
  // plan, what a rank threw, Error(cancelled).
  Leader(Peers& peers, const std::string& digest, const std::atomic<bool>* cancel);
  ~Leader() override;

  void begin(WorkStart start) override;
  std::vector<std::size_t> next() override;
  void finished(FinishedDecision finished) override;
  void complete() override;
  void stop() override;
  void end(const Error* error) override;

 private:
  using Clock = std::chrono::steady_clock;

  void gather(const std::string& digest);
  void throw_if_cancelled() const;
  void listen();
  void handle(const Peers::Mail& mail);
  void fail(std::exception_ptr failure);
  void require_alive();
  void send_all(const CrewMessage& message);
  std::vector<std::size_t> take_unit();

  Peers& peers_;
  const std::atomic<bool>* cancel_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<WorkUnit> units_;
  std::vector<bool> done_;               // by rank
  std::vector<Clock::time_point> heard_;  // by rank
  std::exception_ptr failure_;
  bool ended_ = false, stopping_ = false;
  std::mutex finished_mutex_;
  WorkStart start_;  // without its units
  std::thread listener_;
};

}  // namespace qmill
