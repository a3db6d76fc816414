// Filters that are data in a JSON file (docs/filters.md): plugins that need no compiler.
#pragma once

#include <qmill/core/lora_names.h>
#include <qmill/pattern_filter.h>

#include <filesystem>
#include <string>
#include <vector>

namespace qmill {

struct FilterPack {
  std::string name;
  std::string version;
  std::vector<FilterData> filters;  // patterns in place of references to lists
  std::vector<LoraNames> lora_names;
};

// Throws Error(input) that says what is wrong in which filter, in one sentence.
FilterPack parse_filter_pack(std::string_view text);

// The text of such a file. Throws Error(io), or Error(input) for one that is too large.
std::string read_filter_pack(const std::filesystem::path& file);

// Names that a pack which does not parse seems to offer, for messages. Throws nothing.
std::vector<std::string> offered_filters(std::string_view text) noexcept;

}  // namespace qmill
