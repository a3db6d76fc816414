// A rank that is not 0, in a run that several processes share: asks for work, and says what is finished.
#pragma once

#include "run/work.h"

#include <qmill/core/peers.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace qmill {

class Follower final : public Work {
 public:
  // Says `digest` and waits until all may begin. Throws Error(io) that says why they may not, and Error(cancelled).
  Follower(Peers& peers, const std::string& digest, const std::atomic<bool>* cancel);
  ~Follower() override;

  void begin(WorkStart start) override;
  std::vector<std::size_t> next() override;
  void finished(FinishedDecision finished) override;
  void complete() override;
  void stop() override;
  void end(const Error* error) override;

 private:
  using Clock = std::chrono::steady_clock;

  void await_begin(const std::string& digest);
  void throw_if_cancelled() const;
  void listen();
  void fail(std::exception_ptr failure);
  void flush();

  Peers& peers_;
  const std::atomic<bool>* cancel_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::vector<std::size_t>> given_;  // that nobody has taken
  std::exception_ptr failure_;
  bool ended_ = false;     // the leader has published
  bool stopping_ = false;  // so does this object
  std::vector<FinishedDecision> pending_;  // the writer's
  Clock::time_point flushed_ = Clock::now();
  WorkStart start_;
  std::thread listener_;
};

}  // namespace qmill
