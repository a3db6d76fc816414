#include <qmill/core/memory.h>

#include <qmill/core/environment.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>

namespace qmill {
namespace {

constexpr std::array<std::pair<std::string_view, StreamingMode>, 5> kModes = {{{"off", StreamingMode::off},
                                                                               {"minimal", StreamingMode::minimal},
                                                                               {"balanced", StreamingMode::balanced},
                                                                               {"aggressive", StreamingMode::aggressive},
                                                                               {"auto", StreamingMode::automatic}}};
constexpr std::uint64_t kMebi = std::uint64_t{1} << 20;
constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max() / 2;  // sums with it do not wrap

StreamingMode suggested(std::uint64_t model_bytes, std::uint64_t free_bytes) {
  if (model_bytes <= free_bytes / 4) return StreamingMode::minimal;
  return model_bytes <= free_bytes ? StreamingMode::balanced : StreamingMode::aggressive;
}

std::uint64_t budget(StreamingMode mode, std::uint64_t free_bytes) {
  switch (mode) {
    case StreamingMode::minimal:
      return std::min(512 * kMebi, free_bytes / 2);
    case StreamingMode::balanced:
      return std::min(128 * kMebi, free_bytes / 4);
    case StreamingMode::aggressive:
      return std::min(32 * kMebi, free_bytes / 16);
    case StreamingMode::off:
    case StreamingMode::automatic:
      break;
  }
  return kUnlimited;
}

}  // namespace

StreamingMode parse_streaming_mode(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& [known, mode] : kModes) {
    if (known == name) return mode;
    names.push_back(known);
  }
  throw Error(ErrorKind::usage, fmt::format("the streaming mode is '{}'; allowed: {}", name, fmt::join(names, ", ")));
}

std::string_view streaming_mode_name(StreamingMode mode) {
  return std::find_if(kModes.begin(), kModes.end(), [&](const auto& entry) { return entry.second == mode; })->first;
}

StreamingThresholds streaming_thresholds(const std::map<std::string, std::optional<std::int64_t>>& by_name) {
  StreamingThresholds thresholds;
  const std::pair<const char*, std::optional<std::int64_t>*> steps[] = {
      {"hadamard", &thresholds.hadamard}, {"hessian", &thresholds.hessian}, {"ldlq", &thresholds.ldlq}, {"ortho", &thresholds.ortho}};
  for (const auto& [name, value] : by_name) {
    const auto step = std::find_if(std::begin(steps), std::end(steps), [&](const auto& known) { return same_name(known.first, name); });
    if (step == std::end(steps))
      throw Error(ErrorKind::usage, unknown_name_message("streaming threshold", name, {"hadamard", "hessian", "ldlq", "ortho"}));
    if (value && *value < 1)
      throw Error(ErrorKind::usage, fmt::format("the streaming threshold '{}' is {}; allowed: an integer of at least 1", name, *value));
    *step->second = value;
  }
  return thresholds;
}

MemoryPolicy memory_policy(const MemoryOptions& options, std::uint64_t model_bytes, std::uint64_t free_bytes) {
  const auto contradict = [](std::string_view one, std::string_view other) {
    throw Error(ErrorKind::usage, fmt::format("{} contradicts {}", one, other), "leave out one of them");
  };
  const bool is_off = options.mode == StreamingMode::off;
  if (options.low_memory && options.no_limits) contradict("`low_memory`", "`no_memory_limits`");
  if (options.low_memory && is_off) contradict("`low_memory`", "`streaming_mode off`");
  if (options.bytes_in_flight && options.no_limits) contradict("`in_flight`", "`no_memory_limits`");
  if (options.bytes_in_flight && options.low_memory) contradict("`in_flight`", "`low_memory`");
  if (options.bytes_in_flight && is_off) contradict("`in_flight`", "`streaming_mode off`");
  const StreamingThresholds& thresholds = options.thresholds;
  if (options.no_limits && (thresholds.hadamard || thresholds.hessian || thresholds.ldlq || thresholds.ortho))
    contradict("a streaming threshold", "`no_memory_limits`");

  MemoryPolicy policy;
  policy.mode = options.mode ? *options.mode : read_environment().streaming;
  const bool is_automatic = policy.mode == StreamingMode::automatic;
  if (is_automatic) policy.mode = suggested(model_bytes, free_bytes);
  policy.bytes_in_flight = options.low_memory        ? 1
                           : options.no_limits       ? kUnlimited
                           : options.bytes_in_flight ? *options.bytes_in_flight
                                                     : budget(policy.mode, free_bytes);
  policy.summary = fmt::format("{}{}", is_automatic ? "auto: " : "", streaming_mode_name(policy.mode));
  policy.summary += options.low_memory                     ? ", one layer at a time"
                    : policy.bytes_in_flight == kUnlimited ? ", without a limit"
                                                           : fmt::format(", {} MiB in flight", policy.bytes_in_flight / kMebi);
  return policy;
}

}  // namespace qmill
