#include "convert_flags.h"

#include "flag_pages.h"
#include "help.h"
#include "text.h"

#include <qmill/core/conversion.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qmill::app {
namespace {

Flag flag_of(const OptionRow& row) {
  Flag flag;
  flag.name = hyphens(row.spec.name);
  flag.value = row.placeholder;
  flag.initial = row.initial_text();
  flag.help = as_flags(row.spec.help);
  flag.group = row.group;
  flag.letter = row.letter;
  if (row.spec.name == "filter") flag.initial = kAutomaticFilter;
  flag.is_common = row.is_common;
  flag.is_list = row.is_list;
  flag.takes_words = row.takes_words;
  flag.choices = row.spec.choices;
  if (row.is_filter) flag.topics = {"filters"};
  if (row.sets.empty()) return flag;
  if (!row.is_of_plugins()) flag.topics.push_back(group_topic(row.group));
  for (const auto& [quantizer, option] : row.sets) flag.topics.push_back(hyphens(quantizer->info().name));
  flag.topics.emplace_back("advanced");
  if (row.sets.size() == 1 && row.sets.front().first->info().uses_calibration) flag.topics.emplace_back("experimental");
  return flag;
}

// What the command does besides converting.
void add_own_flags(std::vector<Flag>& flags) {
  const auto place = [&](const char* name) {
    return std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.name == name; });
  };
  Flag dry_run{"dry-run", "analyze|create-template", "",
               "write nothing: print what would happen to every tensor, or a layer configuration to fill in", "Input and output"};
  dry_run.optional_words = {"analyze", "create-template"};
  dry_run.is_common = true;
  flags.insert(std::next(place("overwrite")), dry_run);
  Flag report_quality{"report-quality", "", "off", "print the quality of every layer", "Quality"};
  report_quality.is_common = true;
  flags.insert(place("quality-threshold"), {report_quality, {"report", "FILE", "", "write the result as JSON to a file", "Quality"}});
}

}  // namespace

std::vector<Flag> convert_flags(const Host& host) {
  std::vector<Flag> flags;
  const OptionTable table(host);
  for (const OptionRow& row : table.rows())
    if (!row.is_of_plugins()) flags.push_back(flag_of(row));
  add_own_flags(flags);
  const std::vector<Flag> shared = shared_flags();
  const auto is_shared = [&](const Flag& flag) {
    return std::any_of(shared.begin(), shared.end(), [&](const Flag& other) { return other.name == flag.name; });
  };
  std::erase_if(flags, is_shared);  // a filter may be named so: --filter reaches it
  flags.insert(flags.end(), shared.begin(), shared.end());
  for (const OptionRow& row : table.rows())
    if (row.is_of_plugins()) flags.push_back(flag_of(row));
  add_pages(flags, host);
  return flags;
}

ConvertOptions convert_options(const Arguments& arguments, const Host& host) {
  const OptionTable table(host);
  const std::vector<std::string>& operands = arguments.operands();
  std::vector<GivenOption> given;
  for (const OptionRow& row : table.rows()) {
    const std::string flag = hyphens(row.spec.name);
    if (!arguments.given(flag)) continue;
    for (const std::string& value : arguments.list(flag)) given.push_back({row.spec.name, value, true});
  }
  constexpr std::array kOperands = {"input", "output"};
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (arguments.given(kOperands[i]))
      throw Error(ErrorKind::usage, fmt::format("--{} is '{}', and the word '{}' names another; give one", kOperands[i],
                                                arguments.text(kOperands[i]), operands[i]));
    given.push_back({kOperands[i], operands[i], true});
  }
  table.add_automatic_filter(given);
  if (operands.empty() && !arguments.given("input"))
    throw Error(ErrorKind::usage, "no input is given", "qmill -i MODEL.safetensors [-o OUTPUT.safetensors]");
  ConvertOptions options = table.read(given);
  if (options.output.empty()) options.output = default_output(host, options);
  return options;
}

}  // namespace qmill::app
