// Options of a plugin: a schema that the plugin states once, and values that are checked against it.
// Front ends make flags from the schema. The host uses it to check "options" in a layer configuration, and to describe
// the plugin. A plugin parses nothing.
#pragma once

#include <qmill/export.h>

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace qmill {

using OptionValue = std::variant<bool, std::int64_t, double, std::string>;

QMILL_API std::string option_text(const OptionValue& value);  // as a person would type it

struct QMILL_API OptionSpec {
  std::string name;                                            // "actorder": the key in a layer configuration
  OptionValue initial;                                         // default; its alternative is the option's type
  std::string help;                                            // one sentence, no full stop
  double at_least = -std::numeric_limits<double>::infinity();  // of numbers, inclusive
  double at_most = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // text only; empty: any text
  bool takes_numbers = false;             // text only: a number within the bounds, too, besides the choices
  std::string flag = {};                  // what front ends call it, with hyphens; empty: "<quantizer>-<name>"

  std::string allowed() const;  // "true or false", "an integer from 1 to 64", "one of: a, b"
};

// Values for one schema. Reading an option that the schema lacks, or as another type, is Error(internal).
class QMILL_API Options {
 public:
  Options() = default;
  explicit Options(std::vector<OptionSpec> schema);  // every option at its default

  // Throws Error(usage) that names `owner`, the option, the value found and what is allowed. On error nothing changes.
  void set(std::string_view owner, std::string_view name, OptionValue value);
  // The same from a command line's text.
  void parse(std::string_view owner, std::string_view name, std::string_view text);

  bool boolean(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  const std::string& text(std::string_view name) const;

  const std::vector<OptionSpec>& schema() const { return schema_; }
  const OptionValue& value(std::string_view name) const;
  std::map<std::string, OptionValue> changed() const;  // those that differ from their default

 private:
  std::vector<OptionSpec> schema_;
  std::map<std::string, OptionValue> values_;  // by canonical name
};

}  // namespace qmill
