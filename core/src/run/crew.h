// What the ranks of a shared run have in common: they listen to each other, say that they live, and end together.
#pragma once

#include "run/work.h"

#include <qmill/core/peers.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace qmill {

class Crew : public Work {
 public:
  ~Crew() override;

  void begin(WorkStart start) override;
  void stop() override;

 protected:
  using Clock = std::chrono::steady_clock;

  Crew(Peers& peers, const std::atomic<bool>* cancel) : peers_(peers), cancel_(cancel) {}

  // A message of another rank. What it throws ends the run. [the listener]
  virtual void handle(int from, const CrewMessage& message) = 0;
  // Throws Error(io) that names a rank that has said nothing for too long. [the listener, when nothing is left to handle]
  virtual void require_alive() = 0;
  virtual void beat() = 0;

  void send(int rank, const CrewMessage& message) { peers_.send(rank, crew_text(message)); }
  void throw_if_cancelled() const;
  // Error(io) about a rank.
  Error silent(int rank) const;

  // Waits until `is_true`, which is called with mutex_ held. Throws what ended the run, and Error(cancelled).
  template <class Condition>
  void wait(Condition is_true) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kTick, [&] { return failure_ != nullptr || is_true(); })) throw_if_cancelled();
    if (failure_) std::rethrow_exception(failure_);
  }

  Peers& peers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::exception_ptr failure_;  // of any rank: the first
  WorkStart start_;

 private:
  void listen();
  void beat_until_stopped();
  void fail(std::exception_ptr failure);

  const std::atomic<bool>* cancel_;
  std::atomic<bool> stopping_ = false;
  // Two: what the listener does for a message may take longer than the others wait for a sign of life.
  std::thread listener_, beater_;
};

}  // namespace qmill
