// The rows of the table, by what they are about.
#pragma once

#include <qmill/core/option_table.h>

namespace qmill {

using Rows = std::vector<OptionRow>;
using Apply = std::function<void(ConvertOptions&, const OptionValues&)>;

// Adds rows of one group, in the order of help pages.
class RowGroup {
 public:
  RowGroup(Rows& rows, std::string group, bool changes_bytes = true)
      : rows_(rows), group_(std::move(group)), changes_bytes_(changes_bytes) {}

  OptionRow& toggle(std::string name, bool on, std::string help, Apply apply = {}) {
    return add({std::move(name), on, std::move(help)}, true, "", std::move(apply));
  }
  OptionRow& value(std::string name, std::string placeholder, OptionValue initial, std::string help, Apply apply = {}) {
    return add({std::move(name), std::move(initial), std::move(help)}, true, std::move(placeholder), std::move(apply));
  }
  // Without a default; `type` has the type of its values.
  OptionRow& optional(std::string name, std::string placeholder, OptionValue type, std::string help, Apply apply = {}) {
    return add({std::move(name), std::move(type), std::move(help)}, false, std::move(placeholder), std::move(apply));
  }

 private:
  OptionRow& add(OptionSpec spec, bool has_default, std::string placeholder, Apply apply) {
    OptionRow row;
    row.spec = std::move(spec);
    row.has_default = has_default;
    row.group = group_;
    row.changes_bytes = changes_bytes_;
    row.placeholder = std::move(placeholder);
    row.apply = std::move(apply);
    rows_.push_back(std::move(row));
    return rows_.back();
  }

  Rows& rows_;
  const std::string group_;
  const bool changes_bytes_;
};

inline constexpr double kLargestInteger = 4611686018427387904;  // 2^62: sums with it do not overflow

void add_file_rows(Rows& rows);
void add_storage_rows(Rows& rows);
void add_input_rows(Rows& rows);  // calibration, LoRAs
// `later`: rows that come after these; filters must not take their names.
void add_layer_rows(Rows& rows, const Rows& later, const Host& host);
void add_run_rows(Rows& rows);
void add_plugin_rows(Rows& rows, const Host& host);

// The names of the quantizers whose option it is.
std::vector<std::string> owners(const OptionRow& row);

// What format, scaling, block size and quantizer say together.
void settle_storage(ConvertOptions& options, const OptionValues& values, const Host& host);

}  // namespace qmill
