// Completion scripts, from the table of commands.
#include "commands.h"
#include "help.h"
#include "simple_command.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

std::vector<std::string> spellings(const Flag& flag) {
  std::vector<std::string> words = {"--" + flag.name};
  if (flag.letter != 0) words.push_back(fmt::format("-{}", flag.letter));
  if (has_negative(flag)) words.push_back("--no-" + flag.name);
  return words;
}

// In single quotes, for both shells.
std::string in_quotes(std::string_view text) {
  std::string result = "'";
  for (const char letter : text)
    if (letter == '\'')
      result += "'\\''";
    else
      result += letter;
  return result + "'";
}

std::string names(const std::vector<Command>& commands, std::string_view separator) {
  std::vector<std::string> names;
  for (const Command& command : commands) names.push_back(command.name);
  return fmt::format("{}", fmt::join(names, separator));
}

std::string bash_command(const Command& command) {
  std::vector<std::string> flags;
  std::string values;
  for (const Flag& flag : command.flags) {
    const std::vector<std::string> words = spellings(flag);
    flags.insert(flags.end(), words.begin(), words.end());
    if (flag.value.empty()) continue;
    // A value that is not one of a few: left to the shell, which offers files.
    const std::vector<std::string> choices = value_choices(command, flag);
    values += fmt::format("        {}) values={} takes_value=1 ;;\n", fmt::join(words, "|"),
                          in_quotes(fmt::format("{}", fmt::join(choices, " "))));
  }
  return fmt::format("    {})\n      flags={}\n      first={}\n      case $before in\n{}      esac\n      ;;\n", command.name,
                     in_quotes(fmt::format("{}", fmt::join(flags, " "))), in_quotes(fmt::format("{}", fmt::join(command.first_words, " "))),
                     values);
}

std::string bash_script(const std::vector<Command>& commands) {
  std::string text = "# Completion of qmill for bash; made by: qmill completion bash\n_qmill() {\n";
  text += "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=convert flags= first= values= takes_value=\n";
  text += "  COMPREPLY=()\n";
  // Bash takes the = of --flag=value for a word of its own.
  text += "  if [[ $word == '=' ]]; then\n    word=\n  elif [[ $before == '=' ]]; then\n    before=${COMP_WORDS[COMP_CWORD-2]}\n  fi\n";
  text += "  before=${before//_/-}\n";
  text +=
      fmt::format("  if ((COMP_CWORD == 1)) && [[ $word != -* ]]; then\n    COMPREPLY=($(compgen -W {} -- \"$word\"))\n    return\n  fi\n",
                  in_quotes(names(commands, " ") + " help"));
  text += fmt::format(
      "  case ${{COMP_WORDS[1]}} in\n    {}) command=${{COMP_WORDS[1]}} ;;\n    help) COMPREPLY=($(compgen -W {} -- \"$word\")); return "
      ";;\n  esac\n",
      names(commands, "|"), in_quotes(names(commands, " ")));
  text += "  case $command in\n";
  for (const Command& command : commands) text += bash_command(command);
  text += "  esac\n";
  text += "  if [[ -n $values ]]; then\n    COMPREPLY=($(compgen -W \"$values\" -- \"$word\"))\n";
  text += "  elif [[ -n $takes_value ]]; then\n    return\n";
  text += "  elif [[ $word == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n";
  text += "  elif ((COMP_CWORD == 2)) && [[ -n $first ]]; then\n    COMPREPLY=($(compgen -W \"$first\" -- \"$word\"))\n  fi\n}\n";
  return text + "complete -o default -F _qmill qmill\n";
}

// Text inside the brackets or before a colon of a specification of _arguments.
std::string zsh_text(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '[' || letter == ']' || letter == ':' || letter == '\\') result += '\\';
    result += letter;
  }
  return result;
}

std::string zsh_flag(const Command& command, const Flag& flag) {
  std::string value;
  if (!flag.value.empty()) {
    const std::vector<std::string> choices = value_choices(command, flag);
    const std::string action = !choices.empty()         ? fmt::format("({})", fmt::join(choices, " "))
                               : flag.value == "DIR"    ? "_directories"
                               : takes_path(flag.value) ? "_files"
                                                        : " ";
    value = fmt::format(":{}{}:{}", flag.optional_words.empty() ? "" : ":", zsh_text(flag.value), action);
  }
  const std::string help = zsh_text(flag.help);
  const std::string many = flag.is_list ? "*" : "";
  std::string text =
      fmt::format("        {} \\\n", in_quotes(fmt::format("{}--{}{}[{}]{}", many, flag.name, flag.value.empty() ? "" : "=", help, value)));
  if (flag.letter != 0) text += fmt::format("        {} \\\n", in_quotes(fmt::format("{}-{}[{}]{}", many, flag.letter, help, value)));
  if (has_negative(flag)) text += fmt::format("        {} \\\n", in_quotes(fmt::format("--no-{}[not\\: {}]", flag.name, help)));
  return text;
}

std::string zsh_script(const std::vector<Command>& commands) {
  std::string text =
      "#compdef qmill\n# Completion of qmill for zsh; made by: qmill completion zsh\n_qmill() {\n  local command=convert\n  local -a "
      "commands=(\n";
  for (const Command& command : commands)
    text += fmt::format("    {}\n", in_quotes(fmt::format("{}:{}", command.name, zsh_text(command.purpose))));
  text += "  )\n  if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then\n    _describe command commands\n    return\n  fi\n";
  text += fmt::format("  case $words[2] in\n    {})\n      command=$words[2]\n      shift words\n      ((CURRENT--))\n      ;;\n  esac\n",
                      names(commands, "|"));
  text += "  case $command in\n";
  for (const Command& command : commands) {
    text += fmt::format("    {})\n      _arguments -s -S \\\n", command.name);
    for (const Flag& flag : command.flags) text += zsh_flag(command, flag);
    if (!command.first_words.empty())
      text += fmt::format("        {} \\\n", in_quotes(fmt::format("1:what:({})", fmt::join(command.first_words, " "))));
    text += "        '*:file:_files'\n      ;;\n";
  }
  return text + "  esac\n}\n_qmill \"$@\"\n";
}

}  // namespace

int run_completion(const Words& words) {
  const SimpleCommand command("completion", words);
  if (command.shows_help()) return kDone;
  const std::vector<std::string>& operands = command.arguments.operands();
  if (operands.empty()) throw Error(ErrorKind::usage, "no shell is given; known: bash, zsh", "source <(qmill completion bash)");
  if (operands.front() != "bash" && operands.front() != "zsh")
    throw Error(ErrorKind::usage, fmt::format("there is no completion for '{}'; known: bash, zsh", operands.front()));
  const std::vector<Command> commands = commands_with_flags(command.host());
  fmt::print("{}", operands.front() == "bash" ? bash_script(commands) : zsh_script(commands));
  return kDone;
}

}  // namespace qmill::app
