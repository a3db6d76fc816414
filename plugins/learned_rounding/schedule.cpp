#include "schedule.h"

#include <algorithm>
#include <cmath>

namespace learned_rounding {
namespace {

constexpr double kHalf = 0.5;  // adaptive: the noise of rounding falls with the step, and with it the loss that can be reached

}  // namespace

RateSchedule::RateSchedule(const ScheduleSettings& settings, std::int64_t rows, std::int64_t columns)
    : settings_(settings), rate_(settings.rate) {
  const double aspect = static_cast<double>(std::max(rows, columns)) / static_cast<double>(std::min(rows, columns));
  const double shaped = std::pow(settings.factor, std::sqrt(aspect));
  shaped_factor_ = std::clamp(settings.factor + (shaped - settings.factor) * settings.shape_influence, 0.0, 1.0);
}

bool RateSchedule::improves(double loss) const {
  if (settings_.threshold == 0) return loss < best_;
  return settings_.threshold_is_relative ? loss < best_ * (1 - settings_.threshold) : best_ - loss > settings_.threshold;
}

void RateSchedule::shrink(double factor) { rate_ = std::max(rate_ * factor, std::min(rate_, settings_.least_rate)); }

void RateSchedule::after(double loss) {
  const bool improved = improves(loss);
  if (improved) best_ = loss;
  in_vain_ = improved ? 0 : in_vain_ + 1;
  switch (settings_.kind) {
    case ScheduleKind::exponential:
      shrink(settings_.gamma);
      break;
    case ScheduleKind::adaptive:
      if (!improved)
        shrink(kHalf);
      else if (settings_.resets)
        rate_ = settings_.rate;
      break;
    case ScheduleKind::plateau:
      if (cooling_ > 0) {
        --cooling_;
        in_vain_ = 0;
      } else if (in_vain_ >= std::max<std::int64_t>(1, settings_.patience)) {
        shrink(shaped_factor_);
        cooling_ = settings_.cooldown;
        in_vain_ = 0;
      }
      break;
  }
}

StopRule::StopRule(const Settings& settings, double worth)
    : settings_(settings.stop),
      // A plateau is waited for: without that, none would be long enough to shrink a step.
      patience_(settings.stop.stall + (settings.schedule.kind == ScheduleKind::plateau ? settings.schedule.patience : 0)),
      worth_(worth) {}

bool StopRule::stops_after(double loss, double next_rate) {
  if (loss < reference_ * (1 - worth_)) {
    reference_ = loss;
    in_vain_ = 0;
  } else {
    ++in_vain_;
  }
  return loss <= settings_.loss || next_rate <= settings_.rate || in_vain_ > patience_;
}

}  // namespace learned_rounding
