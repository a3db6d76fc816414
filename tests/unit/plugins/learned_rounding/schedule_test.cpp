#include <schedule.h>

#include <gtest/gtest.h>

#include <vector>

using namespace learned_rounding;

namespace {

// The rates of the iterations after these losses.
std::vector<double> trace(const ScheduleSettings& settings, const std::vector<double>& losses, std::int64_t rows = 8) {
  RateSchedule schedule(settings, rows, 8);
  std::vector<double> rates;
  for (const double loss : losses) {
    schedule.after(loss);
    rates.push_back(schedule.rate());
  }
  return rates;
}

ScheduleSettings unit(ScheduleKind kind) {
  ScheduleSettings settings;
  settings.kind = kind;
  settings.rate = 1;
  return settings;
}

using Rates = std::vector<double>;

TEST(RateSchedule, ExponentialShrinksByGammaEveryTime) {
  ScheduleSettings settings = unit(ScheduleKind::exponential);
  settings.gamma = 0.5;
  EXPECT_EQ(trace(settings, {0.9, 2, 0.1}), (Rates{0.5, 0.25, 0.125}));
}

TEST(RateSchedule, NothingShrinksBelowTheLeastRate) {
  for (const ScheduleKind kind : {ScheduleKind::exponential, ScheduleKind::adaptive, ScheduleKind::plateau}) {
    ScheduleSettings settings = unit(kind);
    settings.gamma = settings.factor = 0.1;
    settings.patience = settings.cooldown = 0;
    settings.least_rate = 0.3;
    EXPECT_EQ(trace(settings, {2, 2, 2}).back(), 0.3);
  }
}

TEST(RateSchedule, AdaptiveHalvesInVainAndIsWholeAgainOnlyWithReset) {
  ScheduleSettings settings = unit(ScheduleKind::adaptive);
  EXPECT_EQ(trace(settings, {0.9, 0.95, 0.92, 0.8}), (Rates{1, 0.5, 0.25, 1}));
  settings.resets = false;
  EXPECT_EQ(trace(settings, {0.9, 0.95, 0.92, 0.8}), (Rates{1, 0.5, 0.25, 0.25}));
}

TEST(RateSchedule, PlateauWaitsForPatienceAndThenCoolsDown) {
  ScheduleSettings settings = unit(ScheduleKind::plateau);
  settings.patience = 2;
  settings.factor = 0.5;
  settings.cooldown = 0;
  EXPECT_EQ(trace(settings, {2, 2, 2, 2}), (Rates{1, 0.5, 0.5, 0.25}));
  settings.cooldown = 1;
  EXPECT_EQ(trace(settings, {2, 2, 2, 2, 2}), (Rates{1, 0.5, 0.5, 0.5, 0.25}));
  settings.patience = 3;
  EXPECT_EQ(trace(settings, {2, 2, 2}), (Rates{1, 1, 0.5}));
}

TEST(RateSchedule, AWeightFarFromSquareShrinksFasterByItsInfluence) {
  ScheduleSettings settings = unit(ScheduleKind::plateau);
  settings.patience = 1;
  settings.factor = 0.5;
  EXPECT_DOUBLE_EQ(trace(settings, {2}, 32).back(), 0.25);  // 0.5^sqrt(32 / 8)
  settings.shape_influence = 0;
  EXPECT_DOUBLE_EQ(trace(settings, {2}, 32).back(), 0.5);
}

TEST(RateSchedule, TheThresholdIsRelativeToTheBestOrToRoundingToNearest) {
  ScheduleSettings settings = unit(ScheduleKind::adaptive);
  settings.threshold = 0.1;  // 0.5 -> 0.44 falls by 12 % of the best, and by 0.06
  EXPECT_EQ(trace(settings, {0.5, 0.44}), (Rates{1, 1}));
  settings.threshold_is_relative = false;
  EXPECT_EQ(trace(settings, {0.5, 0.44}), (Rates{1, 0.5}));
}

Settings stopping(double loss, double rate, std::int64_t stall) {
  Settings settings;
  settings.stop = {loss, rate, stall};
  return settings;
}

TEST(StopRule, StopsAtTheLossTheRateOrAStall) {
  EXPECT_FALSE(StopRule(stopping(0.5, 0, 9), 0).stops_after(0.51, 1));
  EXPECT_TRUE(StopRule(stopping(0.5, 0, 9), 0).stops_after(0.5, 1));
  EXPECT_TRUE(StopRule(stopping(0, 0.5, 9), 0).stops_after(0.9, 0.5));
  StopRule stalls(stopping(0, 0, 1), 0.1);
  EXPECT_FALSE(stalls.stops_after(0.95, 1));
  EXPECT_FALSE(stalls.stops_after(0.89, 1));  // 11 % below where it began
  EXPECT_FALSE(stalls.stops_after(0.85, 1));
  EXPECT_TRUE(stalls.stops_after(0.84, 1));
}

TEST(StopRule, APlateauIsWaitedFor) {
  Settings settings = stopping(0, 0, 1);
  settings.schedule.kind = ScheduleKind::plateau;
  settings.schedule.patience = 2;
  StopRule rule(settings, 0);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(rule.stops_after(2, 1)) << i;
  EXPECT_TRUE(rule.stops_after(2, 1));
}

}  // namespace
