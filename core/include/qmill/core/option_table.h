// The options of a conversion. Each is declared once: command line, keyword arguments, help, completion, manual page and the metadata of
// the output are all made from these rows. Options of plugins are rows of the same table.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// What a person gave for one option. An option that may be given several times is several of these.
struct GivenOption {
  std::string name;  // '-' and '_' are the same
  OptionValue value;
  bool is_text = false;  // `value` is text of a command line, whatever the option's type
};

class OptionValues;

// One option.
struct OptionRow {
  OptionSpec spec;            // name (with underscores), type, default, help, range, choices. Help names other options in `backticks`
  bool has_default = true;    // false: `spec.initial` only says the type; not given, the option is absent
  std::string group;          // of help pages: "Format"
  bool changes_bytes = true;  // a value that is not the default is recorded in the file's metadata

  // How it is applied. Called for every row in order, given or not; empty where another row's does it.
  std::function<void(ConvertOptions& options, const OptionValues& values)> apply = {};
  std::string stands_for = {};                                      // a switch that is short for a value of another option: "format=fp16"
  std::vector<std::pair<const Quantizer*, std::string>> sets = {};  // options of quantizers, which this row sets

  // For those who show it.
  std::string placeholder = {};  // of the value: "NAME"; empty for switches
  char letter = 0;
  bool is_common = false;    // among the few on the short page
  bool is_list = false;      // may be given several times
  bool takes_words = false;  // a list: on a command line every word up to the next flag is one of its values
  bool is_path = false;      // recorded without its folder
  bool is_filter = false;    // uses the filter of its name

  // Of quantizers alone: nothing else reads it.
  bool is_of_plugins() const { return !sets.empty() && !apply; }
  // Whether it means something for a weight in memory (quantize_weight), and not only for files.
  QMILL_CORE_API bool is_of_weights() const;
  bool is_switch() const { return std::holds_alternative<bool>(spec.initial); }
  QMILL_CORE_API std::string initial_text() const;  // "on", "off", "128"; empty without a default
};

// The checked values of one run. Asking for an option that the table lacks is Error(internal).
class OptionValues {
 public:
  bool given(std::string_view name) const;  // by a person, or a switch stands for it
  bool has(std::string_view name) const;    // given, stood for, or with a default
  bool on(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  std::string text(std::string_view name) const;  // empty if it is absent
  std::optional<std::int64_t> maybe_integer(std::string_view name) const;
  std::vector<std::string> list(std::string_view name) const;

 private:
  friend class OptionTable;
  const std::vector<OptionValue>& values(std::string_view name) const;

  std::map<std::string, std::vector<OptionValue>, std::less<>> values_;  // by row; no entry: absent
  std::map<std::string, bool, std::less<>> given_;                       // by row: whether a person named it
};

class QMILL_CORE_API OptionTable {
 public:
  // Loads the host's quantizers and filters, whose options and names are rows. `host` must outlive the table. `config`: a layer
  // configuration that is parsed already, in place of the option `layer_config`.
  explicit OptionTable(const Host& host, std::optional<LayerConfig> config = std::nullopt);

  const std::vector<OptionRow>& rows() const { return rows_; }
  const OptionRow* find(std::string_view name) const;  // null: there is none

  // The name of the row that sets an option of a quantizer which may run beside `given`: keyword arguments call it by its own name,
  // "num_iter". A row's name is returned as it is. Throws Error(usage) for a name that nothing has, and for an option of a quantizer that
  // does not run.
  std::vector<std::string> rows_for_keyword(std::string_view name, const std::vector<GivenOption>& given) const;

  // Throws Error(usage) that names the option in backticks: unknown, given twice, of a wrong type or value, contradicting another, or of a
  // quantizer that no layer would use; Error(io, input) for the layer configuration.
  ConvertOptions read(const std::vector<GivenOption>& given) const;

  // Adds `filter` `auto`, unless `given` says something of filters: what front ends for people do.
  void add_automatic_filter(std::vector<GivenOption>& given) const;

 private:
  OptionValues check(const std::vector<GivenOption>& given) const;
  void stand_for(OptionValues& values) const;
  bool may_run(const Quantizer& quantizer, const OptionValues& values) const;
  void apply_plugin_rows(ConvertOptions& options, const OptionValues& values) const;
  std::map<std::string, std::string> recorded(const OptionValues& values) const;

  const Host& host_;
  const std::optional<LayerConfig> config_;
  std::vector<OptionRow> rows_;
};

}  // namespace qmill
