// The names in markers that mainline ComfyUI accepts, exactly these.
#pragma once

#include "readers/modules.h"

#include <string>
#include <string_view>
#include <vector>

namespace qmill {

struct ReaderFormat {
  std::string_view name;
  std::string_view since;                // a release that has it, like all later ones; empty: so have those of January 2026
  std::string_view since_in_tables = {};  // the same for embeddings; empty: they are not read in this format

  bool is_read_in(ModuleKind kind) const;
  // Of a kind in which it is read.
  std::string_view since_in(ModuleKind kind) const { return kind == ModuleKind::embedding ? since_in_tables : since; }
};

// Null when the reader does not know the name.
const ReaderFormat* find_reader_format(std::string_view name);

std::vector<std::string> reader_format_names();

}  // namespace qmill
