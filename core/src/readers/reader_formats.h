// The names in markers that mainline ComfyUI accepts, exactly these.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qmill {

struct ReaderFormat {
  std::string_view name;
  std::string_view since;  // first release that has it; empty: before 0.27.0
};

// Null when the reader does not know the name.
const ReaderFormat* find_reader_format(std::string_view name);

std::vector<std::string> reader_format_names();

}  // namespace qmill
