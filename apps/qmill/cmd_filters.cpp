#include "commands.h"
#include "json_output.h"
#include "simple_command.h"

#include <qmill/error.h>
#include <qmill/pattern_filter.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace qmill::app {
namespace {

Json filter_json(const ModelFilter& filter) {
  Json json = {{"name", filter.info().name}, {"category", filter.info().category}, {"summary", filter.info().summary}};
  if (const auto* patterns = dynamic_cast<const PatternFilter*>(&filter)) {
    json["keep"] = patterns->data().keep;
    json["remove"] = patterns->data().remove;
    json["fingerprint"] = patterns->data().fingerprint;
  }
  return json;
}

void print_info(const ModelFilter& filter) {
  fmt::print("{} ({}): {}\n", filter.info().name, filter.info().category, filter.info().summary);
  const auto* patterns = dynamic_cast<const PatternFilter*>(&filter);
  if (patterns == nullptr) return;
  fmt::print("  keeps    {}\n", fmt::join(patterns->data().keep, "  "));
  if (!patterns->data().remove.empty()) fmt::print("  removes  {}\n", fmt::join(patterns->data().remove, "  "));
  fmt::print("A pattern is a run of dot-separated parts of a tensor's name; * stands for any characters of a part.\n");
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
    Json list = Json::array();
    for (const ModelFilter* filter : host.filters()) {
      list.push_back(filter_json(*filter));
      if (!as_json) fmt::print("{:<16} {:<8} {}\n", filter->info().name, filter->info().category, filter->info().summary);
    }
    if (as_json) print_json(list);
    return kDone;
  }
  if (operands.front() != "info" || operands.size() != 2)
    throw Error(ErrorKind::usage, fmt::format("'{}' is not what filters takes", fmt::join(operands, " ")),
                "qmill filters list, or qmill filters info NAME");
  const ModelFilter& filter = host.filter(operands[1]);
  if (as_json)
    print_json(filter_json(filter));
  else
    print_info(filter);
  return kDone;
}

}  // namespace qmill::app
