// How the size of a step changes from iteration to iteration, and when to stop. Losses are relative to that of rounding to nearest.
#pragma once

#include "settings.h"

namespace learned_rounding {

class RateSchedule {
 public:
  RateSchedule(const ScheduleSettings& settings, std::int64_t rows, std::int64_t columns);

  double rate() const { return rate_; }  // of the next iteration
  void after(double loss);               // of the iteration that has ended

 private:
  bool improves(double loss) const;
  void shrink(double factor);

  ScheduleSettings settings_;
  double shaped_factor_;  // of a plateau
  double rate_;
  double best_ = 1;
  std::int64_t in_vain_ = 0;
  std::int64_t cooling_ = 0;
};

class StopRule {
 public:
  // `worth`: an iteration in vain is one that leaves the loss above (1 - worth) times that of the last one that was not.
  StopRule(const Settings& settings, double worth);

  bool stops_after(double loss, double next_rate);

 private:
  StopSettings settings_;
  std::int64_t patience_;
  double worth_;
  double reference_ = 1;
  std::int64_t in_vain_ = 0;
};

}  // namespace learned_rounding
