// Command lines: one table of flags per command, from which parsing and help both come.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qmill {
class Host;
}

namespace qmill::app {

struct Flag {
  std::string name;     // long name with hyphens; the same with underscores is accepted
  std::string value;    // placeholder of its value; empty: a switch, which also has a --no- form
  std::string initial;  // default as it is shown; switches: "on" or "off"
  std::string help;
  std::string group;
  char letter = 0;
  bool is_common = false;                        // on the short help page
  bool is_list = false;                          // may be given several times
  std::vector<std::string> optional_words = {};  // the value may be left out; else it is one of these
  std::vector<std::string> topics = {};          // help pages that it is on; empty: that of its group
  std::vector<std::string> choices = {};         // values, where they are few; empty: see `help`
  bool takes_words = false;                      // a list: every word up to the next flag is one of its values
};

// Whether it is a switch with a --no- form: "--no-learned-rounding" has no "--no-no-learned-rounding".
bool has_negative(const Flag& flag);

struct Command {
  std::string name;
  std::string purpose;
  std::vector<std::string> usage;     // forms of the command line, without the program's name
  std::vector<std::string> examples;  // that work
  int (*run)(const std::vector<std::string>& words) = nullptr;
  std::vector<Flag> flags = {};
  std::size_t max_operands = 0;                            // words that are not flags
  std::vector<std::string> first_words = {};               // the first operand is one of these; empty: files
  std::vector<Flag> (*host_flags)(const Host&) = nullptr;  // makes `flags`, where the host's plugins add to them
};

// What was given on one command line.
class Arguments {
 public:
  // Throws Error(usage) that names the argument: unknown, without its value, given twice, one operand too many.
  Arguments(const Command& command, const std::vector<std::string>& words);

  const std::vector<std::string>& operands() const { return operands_; }
  bool given(const std::string& flag) const { return values_.contains(flag); }
  bool on(const std::string& flag) const;           // a switch, with its default
  std::string text(const std::string& flag) const;  // with its default
  const std::vector<std::string>& list(const std::string& flag) const;
  // The words that say the same of this flag; none when it was not given.
  std::vector<std::string> words(const std::string& flag) const;
  // Numbers: throw Error(usage) that says what is allowed.
  std::int64_t integer(const std::string& flag, std::int64_t at_least, std::int64_t at_most) const;
  double number(const std::string& flag) const;
  // One of `allowed`, or Error(usage).
  std::string choice(const std::string& flag, const std::vector<std::string>& allowed) const;

 private:
  bool has_flag(const std::string& name) const;
  const Flag& flag(const std::string& name) const;

  const Command& command_;
  std::vector<std::string> operands_;
  std::map<std::string, std::vector<std::string>> values_;
};

// The value of --plugin-dir, before the table of flags is known (plugins add to it).
std::vector<std::string> plugin_dirs(const std::vector<std::string>& words);

}  // namespace qmill::app
