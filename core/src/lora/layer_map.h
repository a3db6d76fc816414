// Other names of a model's layers and of parts of their rows, made from the data of filter packs.
#pragma once

#include <qmill/core/lora_names.h>

#include <optional>
#include <string_view>

namespace qmill {

// A part of a layer's rows.
struct RowRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  bool halves_swapped = false;  // the second half of the rows comes first in the LoRA

  bool operator==(const RowRange&) const = default;
};

struct OtherName {
  std::string name;
  std::optional<RowRange> rows;  // nothing: all, as they are
};

// `own_name` is the layer's, without prefixes of wrappers and checkpoints. Parts whose rows the layer does not have are left out. Throws
// Error(input) when the data give one layer absurdly many names.
std::vector<OtherName> other_names(const std::vector<const BlockNames*>& data, std::string_view own_name, std::int64_t rows,
                                   std::int64_t columns);

}  // namespace qmill
