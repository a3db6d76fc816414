// The manual page, from the table of commands.
#include "commands.h"
#include "help.h"
#include "simple_command.h"

#include <qmill/version.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

// As roff prints it: hyphens that can be copied, no escapes, and no request at the start of a line.
std::string roff(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '-')
      result += "\\-";
    else if (letter == '\\')
      result += "\\e";
    else if (letter == '\'')
      result += "\\(aq";
    else
      result += letter;
  }
  return result.starts_with('.') ? "\\&" + result : result;
}

std::string bold(std::string_view text) { return "\\fB" + roff(text) + "\\fR"; }

std::string flag_entry(const Flag& flag) {
  std::string line = flag.letter == 0 ? "" : bold(fmt::format("-{}", flag.letter)) + ", ";
  line += bold("--" + flag.name);
  if (!flag.value.empty())
    line +=
        fmt::format(" {0}\\fI{1}\\fR{2}", flag.optional_words.empty() ? "" : "[", roff(flag.value), flag.optional_words.empty() ? "" : "]");
  else if (has_negative(flag))
    line += ", " + bold("--no-" + flag.name);
  std::string help = flag.help;
  if (!flag.choices.empty()) help += fmt::format(" ({})", fmt::join(flag.choices, ", "));
  if (!flag.initial.empty() && flag.initial != "off") help += fmt::format(" [{}]", flag.initial);
  return fmt::format(".TP\n{}\n{}\n", line, roff(help));
}

std::string options(const Command& command) {
  std::string text;
  std::string group;
  for (const Flag& flag : command.flags) {
    if (flag.group != group) text += fmt::format(".SS {}: {}\n", roff(command.name), roff(flag.group));
    group = flag.group;
    text += flag_entry(flag);
  }
  return text;
}

// A command with those of its flags that are not among `others`.
Command without(Command command, const std::vector<Flag>& others) {
  const auto is_other = [&](const Flag& flag) {
    return std::any_of(others.begin(), others.end(), [&](const Flag& other) { return other.name == flag.name; });
  };
  command.flags.erase(std::remove_if(command.flags.begin(), command.flags.end(), is_other), command.flags.end());
  return command;
}

std::string page(const std::vector<Command>& commands) {
  std::string text = fmt::format(".TH QMILL 1 \"\" \"qmill {}\" \"User Commands\"\n", QMILL_VERSION);
  text += ".SH NAME\nqmill \\- quantize the weights of trained models\n.SH SYNOPSIS\n.nf\n";
  text += fmt::format("{} \\-i \\fIMODEL\\fR [\\-o \\fIOUTPUT\\fR] [\\fIflags\\fR]\n", bold("qmill"));
  for (const Command& command : commands)
    for (const std::string& usage : command.usage) text += fmt::format("{} {}\n", bold("qmill"), roff(usage));
  text +=
      ".fi\n.SH DESCRIPTION\nqmill reads a safetensors file and writes a smaller one that real programs load. The default command is "
      "convert.\n";
  text += "Every switch has a \\-\\-no\\- form; \\- and _ are the same in names; defaults are in [brackets].\n.SH COMMANDS\n";
  for (const Command& command : commands) text += fmt::format(".TP\n{}\n{}\n", bold(command.name), roff(command.purpose));
  text += ".SH OPTIONS\n";
  for (const Command& command : commands) {
    const bool repeats = command.host_flags != nullptr && command.name != commands.front().name;
    if (repeats) text += fmt::format(".SS {}\nThe options of {}, and these:\n", roff(command.name), bold(commands.front().name));
    text += options(repeats ? without(command, commands.front().flags) : command);
  }
  text += ".SH EXIT STATUS\n";
  constexpr std::pair<int, const char*> kStatuses[] = {{kDone, "done: the file is complete and has its name"},
                                                       {kFailed, "failed; nothing new is at the destination"},
                                                       {kUsage, "wrong command line"},
                                                       {kQualityBelow, "quality below --fail-below"},
                                                       {kInterrupted, "interrupted"}};
  for (const auto& [status, meaning] : kStatuses) text += fmt::format(".TP\n.B {}\n{}\n", status, roff(meaning));
  text +=
      ".SH ENVIRONMENT\n.TP\n.B QMILL_PLUGIN_PATH\nfolders of plugins, with colons between them, searched after \\-\\-plugin\\-dir\n.SH "
      "EXAMPLES\n.nf\n";
  for (const Command& command : commands)
    for (const std::string& example : command.examples) text += roff(example) + "\n";
  return text + ".fi\n";
}

}  // namespace

int run_man(const Words& words) {
  const SimpleCommand command("man", words);
  if (command.shows_help()) return kDone;
  fmt::print("{}", page(commands_with_flags(command.host())));
  return kDone;
}

}  // namespace qmill::app
