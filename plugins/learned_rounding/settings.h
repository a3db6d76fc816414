// The options of learned rounding, read once per layer.
#pragma once

#include <qmill/options.h>

namespace learned_rounding {

enum class Variant { original, adamw, radam };
enum class ScheduleKind { adaptive, exponential, plateau };

inline constexpr double kUsualRate = 8.077300000003e-3;  // default of "lr"

struct ScheduleSettings {
  ScheduleKind kind = ScheduleKind::adaptive;
  double rate = kUsualRate;
  double gamma = 0.99;
  std::int64_t patience = 9;
  double factor = 0.92;
  double least_rate = 1e-10;
  std::int64_t cooldown = 6;
  double threshold = 0;
  bool threshold_is_relative = true;
  bool resets = true;
  double shape_influence = 1;
};

struct StopSettings {
  double loss = 1e-8;  // of that of rounding to nearest
  double rate = 1e-10;
  std::int64_t stall = 5;
};

struct Settings {
  Variant variant = Variant::original;
  std::int64_t iterations = 1000;
  ScheduleSettings schedule;
  StopSettings stop;
  double top_share = 0.2;
  std::int64_t least_rank = 64;
  std::int64_t largest_rank = 1024;
  bool full_matrix = false;
};

// `variant`: that of the quantizer whose schema it is; only the one of `original` has an option to choose another.
std::vector<qmill::OptionSpec> option_schema(Variant variant);
// Options that were set and change nothing: a line for each.
std::vector<std::string> idle_options(const qmill::Options& options);

Settings read_settings(const qmill::Options& options, Variant variant);

}  // namespace learned_rounding
