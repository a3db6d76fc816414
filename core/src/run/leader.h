// Rank 0 of a run that several processes share: hands out the work, the most expensive first, and hears what is finished.
#pragma once

#include "run/crew.h"

#include <deque>

namespace qmill {

class Leader final : public Crew {
 public:
  // Waits until each rank has said the same `identity` (the output, a line end, conversion_identity), which takes as long as they plan. Throws Error(usage) that names a
  // rank with another one, what a rank threw, and Error(cancelled); then the others end, too.
  Leader(Peers& peers, const std::string& identity, const std::atomic<bool>* cancel);
  ~Leader() override;

  void begin(WorkStart start) override;
  std::vector<std::size_t> next() override;
  void finished(FinishedDecision finished) override;
  void complete() override;
  void end(const Error* error) override;

 private:
  void gather(const std::string& identity);
  void handle(int from, const CrewMessage& message) override;
  void require_alive() override;
  void beat() override { send_all({}); }
  void send_all(const CrewMessage& message);

  std::deque<WorkUnit> units_;            // that nobody has
  std::vector<bool> done_;                // by rank
  std::vector<Clock::time_point> heard_;  // by rank
  bool ended_ = false;
  std::mutex finished_mutex_;
};

}  // namespace qmill
