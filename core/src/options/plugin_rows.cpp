#include "options/rows.h"

#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill {
namespace {

std::string wanted_name(const Quantizer& quantizer, const OptionSpec& option) {
  return canonical_name(option.flag.empty() ? quantizer.info().name + "_" + option.name : option.flag);
}

OptionRow* find_row(Rows& rows, std::string_view name) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const OptionRow& row) { return row.spec.name == name; });
  return found == rows.end() ? nullptr : &*found;
}

bool is_same_type(const OptionSpec& a, const OptionSpec& b) { return a.initial.index() == b.initial.index() && a.choices == b.choices; }

}  // namespace

std::vector<std::string> owners(const OptionRow& row) {
  std::vector<std::string> names;
  for (const auto& [quantizer, option] : row.sets) names.push_back(quantizer->info().name);
  return names;
}

// One row per option of a quantizer. Options with the same flag share a row; shared rows come last.
void add_plugin_rows(Rows& rows, const Host& host) {
  Rows added;
  for (const Quantizer* quantizer : host.quantizers())
    for (const OptionSpec& option : quantizer->info().options) {
      std::string name = wanted_name(*quantizer, option);
      OptionRow* own = find_row(rows, name);
      if (own != nullptr && is_same_type(own->spec, option)) {  // the same idea
        own->sets.emplace_back(quantizer, option.name);
        continue;
      }
      OptionRow* same = find_row(added, name);
      if (same != nullptr && !option.flag.empty() && is_same_type(same->spec, option) && same->sets.back().first != quantizer) {
        same->sets.emplace_back(quantizer, option.name);
        continue;
      }
      if (same != nullptr || own != nullptr) name = canonical_name(quantizer->info().name + "_" + option.name);
      if (find_row(added, name) != nullptr || find_row(rows, name) != nullptr) continue;  // still reached through a layer configuration
      OptionRow row;
      row.spec = option;
      row.spec.name = name;
      row.sets = {{quantizer, option.name}};
      added.push_back(std::move(row));
    }
  std::stable_partition(added.begin(), added.end(), [](const OptionRow& row) { return row.sets.size() == 1; });
  for (OptionRow& row : added) {
    row.group = fmt::format("Options of {} {}", row.sets.size() > 1 ? "the quantizers" : "the quantizer", fmt::join(owners(row), ", "));
    if (!row.is_switch()) row.placeholder = row.spec.choices.empty() ? "VALUE" : fmt::format("{}", fmt::join(row.spec.choices, "|"));
    if (!row.is_switch() && row.spec.choices.empty()) row.spec.help += "; " + row.spec.allowed();
    rows.push_back(std::move(row));
  }
}

}  // namespace qmill
