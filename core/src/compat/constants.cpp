#include <qmill/compat/constants.h>

#include <qmill/names.h>

#include <algorithm>

namespace qmill {

std::vector<std::string> ModelFilters::names() const {
  std::vector<std::string> names;
  for (const ModelFilter* filter : default_host().filters()) names.push_back(filter->info().name);
  return names;
}

bool ModelFilters::contains(std::string_view name) const {
  const std::vector<std::string> known = names();
  return std::any_of(known.begin(), known.end(), [&](const std::string& filter) { return same_name(filter, name); });
}

}  // namespace qmill
