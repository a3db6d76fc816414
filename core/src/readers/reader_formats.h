// The names in markers that mainline ComfyUI accepts, exactly these.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qmill {

struct ReaderFormat {
  std::string_view name;
  std::string_view since;  // a release that has it, like all later ones; empty: so have those of January 2026
};

// Null when the reader does not know the name.
const ReaderFormat* find_reader_format(std::string_view name);

std::vector<std::string> reader_format_names();

}  // namespace qmill
