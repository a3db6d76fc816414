#include "commands.h"
#include "simple_command.h"

#include <qmill/core/json.h>
#include <qmill/error.h>
#include <qmill/pattern_filter.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

// Each architecture once, though it may have several fingerprints.
std::vector<std::string> architectures(const ModelFilter& filter) {
  std::vector<std::string> names;
  for (const Fingerprint& fingerprint : filter.fingerprints())
    if (std::find(names.begin(), names.end(), fingerprint.architecture) == names.end()) names.push_back(fingerprint.architecture);
  return names;
}

void print_info(const ModelFilter& filter) {
  fmt::print("{} ({}): {}\n", filter.info().name, filter.info().category, filter.info().summary);
  const auto print = [](const char* label, const std::vector<std::string>& names) {
    if (!names.empty()) fmt::print("  {:<8} {}\n", label, fmt::join(names, "  "));
  };
  const auto* patterns = dynamic_cast<const PatternFilter*>(&filter);
  if (patterns != nullptr) print("keeps", patterns->data().keep);
  if (patterns != nullptr) print("removes", patterns->data().remove);
  print("is for", architectures(filter));
  if (patterns != nullptr)
    fmt::print("A pattern is a sequence of dot-separated parts of a tensor's name; * stands for any characters of a part.\n");
}

}  // namespace

int run_filters(const Words& words) {
  const SimpleCommand command("filters", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  const std::vector<std::string>& operands = arguments.operands();
  const Host host = command.host();
  const bool as_json = arguments.on("json");
  if (operands.empty() || (operands.front() == "list" && operands.size() == 1)) {
    if (as_json)
      fmt::print("{}\n", filters_json(host));
    else
      for (const ModelFilter* filter : host.filters())
        fmt::print("{:<18} {:<6} {}\n", filter->info().name, filter->info().category, filter->info().summary);
    return kDone;
  }
  if (operands.front() != "info" || operands.size() != 2)
    throw Error(ErrorKind::usage, fmt::format("'{}' is not what filters takes", fmt::join(operands, " ")),
                "qmill filters list, or qmill filters info NAME");
  const ModelFilter& filter = host.filter(operands[1]);
  if (as_json)
    fmt::print("{}\n", filter_json(filter));
  else
    print_info(filter);
  return kDone;
}

}  // namespace qmill::app
