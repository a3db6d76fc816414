#include "help.h"

#include <fmt/format.h>

#include <sstream>

namespace qmill::app {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kFlagColumn = 34;

// `text` in lines of at most kWidth, all but the first indented.
std::string wrapped(const std::string& text, std::size_t indent) {
  std::istringstream words(text);
  std::string result;
  std::string word;
  std::size_t column = indent;
  while (words >> word) {
    if (column != indent && column + 1 + word.size() > kWidth) {
      result += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column != indent) {
      result += ' ';
      ++column;
    }
    result += word;
    column += word.size();
  }
  return result;
}

std::string flag_line(const Flag& flag) {
  std::string left = flag.letter == 0 ? "      " : fmt::format("  -{}, ", flag.letter);
  left += "--" + flag.name;
  if (!flag.optional_words.empty())
    left += fmt::format(" [{}]", flag.value);
  else if (!flag.value.empty())
    left += " " + flag.value;
  std::string right = flag.help;
  if (!flag.initial.empty() && flag.initial != "off") right += fmt::format(" [{}]", flag.initial);
  if (left.size() + 2 > kFlagColumn)
    left += "\n" + std::string(kFlagColumn, ' ');
  else
    left.resize(kFlagColumn, ' ');
  return left + wrapped(right, kFlagColumn) + "\n";
}

}  // namespace

std::vector<Flag> shared_flags() {
  std::vector<Flag> flags(4);
  flags[0].name = "plugin-dir";
  flags[0].value = "DIR";
  flags[0].help = "a folder of plugins, searched before all others; may be given several times";
  flags[0].is_list = true;
  flags[1].name = "json";
  flags[1].initial = "off";
  flags[1].help = "print the result as JSON (docs/json.md)";
  flags[1].is_common = true;
  flags[2].name = "help";
  flags[2].value = "all";
  flags[2].help = "this page; with the word all: every flag";
  flags[2].letter = 'h';
  flags[2].optional_words = {"common", "all"};
  flags[2].is_common = true;
  flags[3].name = "verbose";
  flags[3].value = "LEVEL";
  flags[3].initial = "NORMAL";
  flags[3].help = "DEBUG, VERBOSE (every layer), NORMAL, or MINIMAL (warnings and errors)";
  for (Flag& flag : flags) flag.group = "General";
  return flags;
}

std::string program_help(const std::vector<Command>& commands) {
  std::string text = "qmill quantizes the weights of trained models: safetensors in, smaller safetensors out.\n\n";
  text += "  qmill -i MODEL [-o OUTPUT]           convert (the command may be left out)\n";
  for (const Command& command : commands)
    for (const std::string& usage : command.usage)
      text += fmt::format("  qmill {:<30} {}\n", usage, usage == command.usage.front() ? command.purpose : "");
  text += "\nExamples:\n";
  for (const std::string& example : commands.front().examples) text += fmt::format("  {}\n", example);
  return text + "\nMore: qmill COMMAND --help, qmill convert --help all, qmill --version\n";
}

std::string command_help(const Command& command, bool everything) {
  std::string text = fmt::format("{}\n\n", command.purpose);
  for (const std::string& usage : command.usage) text += fmt::format("  qmill {}\n", usage);
  if (!command.examples.empty()) text += "\nExamples:\n";
  for (const std::string& example : command.examples) text += fmt::format("  {}\n", example);
  std::string group;
  for (const Flag& flag : command.flags) {
    if (!everything && !flag.is_common) continue;
    if (flag.group != group) text += fmt::format("\n{}:\n", flag.group);
    group = flag.group;
    text += flag_line(flag);
  }
  text += "\nEvery switch has a --no- form; - and _ are the same in names. Defaults are in [brackets].\n";
  if (!everything) text += fmt::format("All flags, also those of plugins: qmill {} --help all\n", command.name);
  return text;
}

}  // namespace qmill::app
