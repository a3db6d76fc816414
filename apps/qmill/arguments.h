// Command lines: one table of flags per command, from which parsing and help both come.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

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
};

struct Command {
  std::string name;
  std::string purpose;
  std::vector<std::string> usage;     // forms of the command line, without the program's name
  std::vector<std::string> examples;  // that work
  std::vector<Flag> flags = {};
  std::size_t max_operands = 0;  // words that are not flags
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
