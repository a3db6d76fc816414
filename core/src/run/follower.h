// A rank that is not 0, in a run that several processes share: asks for work, and says what is finished.
#pragma once

#include "run/crew.h"

namespace qmill {

class Follower final : public Crew {
 public:
  // Says the `identity` of its conversion, and waits until all may begin. Throws Error(io) that says why they may not, and Error(cancelled);
  // then rank 0 hears of it.
  Follower(Peers& peers, const std::string& identity, const std::atomic<bool>* cancel);
  ~Follower() override { stop(); }

  void begin(WorkStart start) override;
  std::vector<std::size_t> next() override;
  void finished(FinishedDecision finished) override;
  void complete() override;
  void end(const Error* error) override;

 private:
  void await_begin();
  void handle(int from, const CrewMessage& message) override;
  void require_alive() override;
  void beat() override { send(0, {}); }
  void flush();

  std::optional<std::vector<std::size_t>> given_;  // that the reader has not taken
  bool ended_ = false;                             // rank 0 has published
  Clock::time_point heard_;                        // the listener's
  std::vector<FinishedDecision> pending_;          // the writer's
  Clock::time_point flushed_ = Clock::now();
};

}  // namespace qmill
