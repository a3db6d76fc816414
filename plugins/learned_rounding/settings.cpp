#include "settings.h"

#include <qmill/error.h>
#include <qmill/numerics/calibrated_rounding.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace learned_rounding {

using qmill::OptionSpec;

namespace {

constexpr double kLargest = 1e9;
constexpr std::int64_t kSoftIterations = 200;  // each costs several of the others

OptionSpec number(const char* name, double initial, const char* help, double at_most = kLargest) {
  return {name, initial, help, 0, at_most};
}

OptionSpec count(const char* name, std::int64_t initial, const char* help, double at_least = 0) {
  return {name, initial, help, at_least, kLargest};
}

OptionSpec choice(const char* name, std::vector<std::string> choices, const char* help) {
  OptionSpec option{name, choices.front(), help};
  option.choices = std::move(choices);
  return option;
}

// Options that contradict each other.
void require_sense(const Settings& settings, const qmill::Options& options) {
  using qmill::Error;
  const std::map<std::string, qmill::OptionValue> changed = options.changed();
  if (settings.least_rank > settings.largest_rank && changed.contains("min_k") && changed.contains("max_k"))
    throw Error(qmill::ErrorKind::usage,
                fmt::format("`min_k` is {}, and `max_k` is {}; expected at least that", settings.least_rank, settings.largest_rank));
}

}  // namespace

std::vector<OptionSpec> option_schema(Variant variant) {
  const bool is_soft = variant != Variant::original;
  std::vector<OptionSpec> options = {
      count("num_iter", is_soft ? kSoftIterations : 1000, "largest number of iterations; most layers need far fewer"),
      number("lr", kUsualRate, "size of a step; the default suits the noise of rounding"),
      choice("lr_schedule", {"adaptive", "exponential", "plateau"},
             "how the step shrinks: adaptive: by half if the loss did not fall; exponential: always, by lr-gamma; plateau: by "
             "lr-factor after lr-patience iterations without gain"),
      number("lr_gamma", 0.99, "exponential: factor of each iteration", 1),
      count("lr_patience", 9, "plateau: iterations without gain before the step shrinks"),
      number("lr_factor", 0.92, "plateau: factor of the step", 1),
      number("lr_min", 1e-10, "smallest step"),
      count("lr_cooldown", 6, "plateau: iterations after it shrank that are not counted"),
      number("lr_threshold", 0.0, "smallest fall of the loss that counts as a gain"),
      choice("lr_threshold_mode", {"rel", "abs"}, "what lr-threshold is relative to: the best loss so far, or that of rounding to nearest"),
      choice("lr_adaptive_mode", {"simple-reset", "no-reset"},
             "adaptive: whether the step gets its full size again when the loss falls; no-reset is slower and ends worse"),
      number("lr_shape_influence", 1.0, "plateau: how much faster the step shrinks for weights far from square", 100),
      number("early_stop_loss", 1e-8, "stops at this loss, as a fraction of the loss of rounding to nearest"),
      number("early_stop_lr", 1e-10, "stops at this step"),
      count("early_stop_stall", 5, "stops after more than this many iterations in a row without a useful gain"),
      number("top_p", 0.2, "number of directions of the weight, as a fraction of its smaller side", 1),
      count("min_k", 64, "smallest number of directions", 1),
      count("max_k", 1024, "largest number of directions", 1),
      {"full_matrix", false, "compute exact directions with LAPACK instead of approximate ones; slow"},
  };
  for (OptionSpec& option : options) {
    option.flag = option.name;
    std::replace(option.flag.begin(), option.flag.end(), '_', '-');
  }
  if (variant == Variant::original)
    options.insert(options.begin(), choice("variant", {"original", "adamw", "radam"},
                                           "original: optimize integers; adamw, radam: then optimize soft integers, which is slow"));
  for (OptionSpec& option : qmill::calibrated_options()) options.push_back(std::move(option));
  return options;
}

std::vector<std::string> idle_options(const qmill::Options& options) {
  std::vector<std::string> notes;
  const std::map<std::string, qmill::OptionValue> changed = options.changed();
  for (const auto& [option, needed] : {std::pair{"lr_gamma", "exponential"}, std::pair{"lr_patience", "plateau"}})
    if (changed.contains(option) && options.text("lr_schedule") != needed)
      notes.push_back(fmt::format("`{}` changes nothing without `lr_schedule {}`", option, needed));
  return notes;
}

Settings read_settings(const qmill::Options& options, Variant variant) {
  Settings settings;
  settings.variant = variant;
  if (variant == Variant::original) {
    const std::string& name = options.text("variant");
    settings.variant = name == "adamw" ? Variant::adamw : name == "radam" ? Variant::radam : Variant::original;
  }
  settings.iterations = options.integer("num_iter");
  ScheduleSettings& schedule = settings.schedule;
  const std::string& kind = options.text("lr_schedule");
  schedule.kind = kind == "exponential" ? ScheduleKind::exponential : kind == "plateau" ? ScheduleKind::plateau : ScheduleKind::adaptive;
  schedule.rate = options.real("lr");
  schedule.gamma = options.real("lr_gamma");
  schedule.patience = options.integer("lr_patience");
  schedule.factor = options.real("lr_factor");
  schedule.least_rate = options.real("lr_min");
  schedule.cooldown = options.integer("lr_cooldown");
  schedule.threshold = options.real("lr_threshold");
  schedule.threshold_is_relative = options.text("lr_threshold_mode") == "rel";
  schedule.resets = options.text("lr_adaptive_mode") == "simple-reset";
  schedule.shape_influence = options.real("lr_shape_influence");
  settings.stop = {options.real("early_stop_loss"), options.real("early_stop_lr"), options.integer("early_stop_stall")};
  settings.top_share = options.real("top_p");
  settings.least_rank = options.integer("min_k");
  settings.largest_rank = options.integer("max_k");
  settings.full_matrix = options.boolean("full_matrix");
  require_sense(settings, options);
  return settings;
}

}  // namespace learned_rounding
