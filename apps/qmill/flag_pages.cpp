#include "flag_pages.h"

#include "help.h"

#include <algorithm>

namespace qmill::app {
namespace {

// Flags that tools before this one kept on a page of their own.
bool is_experimental(const Flag& flag) {
  constexpr std::string_view kBeginnings[] = {"custom-",     "fallback",         "heur",   "layer-config", "fullmatch",
                                              "smoothquant", "calibration-lora", "static-"};
  return std::any_of(std::begin(kBeginnings), std::end(kBeginnings),
                     [&](std::string_view beginning) { return flag.name.starts_with(beginning); });
}

bool is_advanced(const std::string& topic) { return topic == "memory" || topic == "gpu" || topic == "running"; }

template <class Thing>
void add_names(std::vector<std::string>& names, const std::vector<const Thing*>& things) {
  for (const Thing* thing : things) names.push_back(thing->info().name);
}

// Those that can be written.
void add_formats(std::vector<std::string>& names, const Host& host) {
  for (const StoredFormat* format : host.formats())
    if (as_writable(*format) != nullptr) names.push_back(format->info().name);
}

std::vector<std::string> values_of(const Flag& flag, const Host& host) {
  std::vector<std::string> values;
  if (flag.name == "optimizer") {
    values.emplace_back("auto");
    add_names(values, host.quantizers());
  } else if (flag.name == "format") {
    add_formats(values, host);
  } else if (flag.name == "filter") {
    values.emplace_back("auto");
    add_names(values, host.filters());
  } else if (flag.name == "fallback" || flag.name == "custom-type") {
    add_formats(values, host);
    add_names(values, host.quantizers());
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
  } else {
    values = named_values(flag);
  }
  return values;
}

}  // namespace

void add_pages(std::vector<Flag>& flags, const Host& host) {
  for (Flag& flag : flags) {
    if (flag.choices.empty()) flag.choices = values_of(flag, host);
    if (!flag.topics.empty()) continue;
    flag.topics = {flag.name == "filter" ? "filters" : group_topic(flag.group)};
    if (is_advanced(flag.topics.front())) flag.topics.emplace_back("advanced");
    if (is_experimental(flag)) flag.topics.emplace_back("experimental");
  }
}

}  // namespace qmill::app
