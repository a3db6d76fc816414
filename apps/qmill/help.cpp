#include "help.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
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

// --help of a command with one page.
Flag only_page(Flag help) {
  help.value.clear();
  help.optional_words.clear();
  help.help = "this page";
  return help;
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
  flags[2].value = "TOPIC";
  flags[2].help = "this page; all: every flag; or the flags of one topic";
  flags[2].letter = 'h';
  flags[2].optional_words = {"common", "all"};
  flags[2].is_common = true;
  flags[3].name = "verbose";
  flags[3].value = "LEVEL";
  flags[3].initial = "NORMAL";
  flags[3].choices = {"DEBUG", "VERBOSE", "NORMAL", "MINIMAL"};
  flags[3].help = "DEBUG, VERBOSE (every layer), NORMAL, or MINIMAL (warnings and errors)";
  for (Flag& flag : flags) flag.group = "General";
  return flags;
}

std::string program_help(const std::vector<Command>& commands) {
  std::string text = "qmill quantizes the weights of trained models: it reads a safetensors file and writes a smaller one.\n\n";
  text += "  qmill -i MODEL [-o OUTPUT]           convert (the command may be left out)\n";
  for (const Command& command : commands)
    for (const std::string& usage : command.usage)
      if (usage == command.usage.front())
        text += fmt::format("  qmill {:<30} {}\n", usage, command.purpose);
      else
        text += fmt::format("  qmill {}\n", usage);
  text += "\nExamples:\n";
  for (const std::string& example : commands.front().examples) text += fmt::format("  {}\n", example);
  return text + "\nMore: qmill COMMAND --help, qmill convert --help all, qmill --version\n";
}

std::string group_topic(const std::string& group) {
  constexpr std::pair<std::string_view, const char*> kNames[] = {
      {"Input and output", "files"}, {"Which layers", "layers"}, {"For GPUs", "gpu"}};
  for (const auto& [name, topic] : kNames)
    if (group == name) return topic;
  std::string topic = group.substr(0, group.find(' '));
  std::transform(topic.begin(), topic.end(), topic.begin(), [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return topic;
}

std::vector<std::string> named_values(const Flag& flag) {
  if (!flag.choices.empty()) return flag.choices;
  std::vector<std::string> values;
  std::istringstream words(flag.value);
  for (std::string word; std::getline(words, word, '|');)
    if (std::none_of(word.begin(), word.end(), [](unsigned char letter) { return std::isupper(letter) || letter == '['; }))
      values.push_back(word);
  return values;
}

bool takes_path(const std::string& placeholder) {
  return placeholder == "FILE" || placeholder == "DIR" || placeholder == "MODEL" || placeholder.starts_with("FILE");
}

std::vector<std::string> value_choices(const Command& command, const Flag& flag) {
  if (flag.name != "help") return named_values(flag);
  std::vector<std::string> topics = {"common", "all"};
  for (const std::string& topic : help_topics(command)) topics.push_back(topic);
  return topics;
}

std::vector<std::string> help_topics(const Command& command) {
  std::vector<std::string> topics;
  const auto add = [&](const std::string& topic) {
    if (std::find(topics.begin(), topics.end(), topic) == topics.end()) topics.push_back(topic);
  };
  for (const Flag& flag : command.flags)
    if (!flag.topics.empty()) add(flag.topics.front());
  for (const Flag& flag : command.flags) std::for_each(flag.topics.begin(), flag.topics.end(), add);
  return topics;
}

std::string command_help(const Command& command, const std::string& topic) {
  const std::vector<std::string> topics = help_topics(command);
  const bool is_topic = topic != "common" && topic != "all";
  const auto is_on_page = [&](const Flag& flag) {
    if (topics.empty() || topic == "all") return true;  // one page holds them all
    if (!is_topic) return flag.is_common;
    return std::any_of(flag.topics.begin(), flag.topics.end(), [&](const std::string& name) { return same_name(name, topic); });
  };
  if (is_topic && (topics.empty() || std::none_of(command.flags.begin(), command.flags.end(), is_on_page))) {
    std::vector<std::string> known = {"all"};
    known.insert(known.end(), topics.begin(), topics.end());
    throw Error(ErrorKind::usage, unknown_name_message("help topic", topic, known));
  }
  std::string text = is_topic ? fmt::format("qmill {}: {}\n", command.name, topic) : fmt::format("{}\n\n", command.purpose);
  if (!is_topic) {
    for (const std::string& usage : command.usage) text += fmt::format("  qmill {}\n", usage);
    if (!command.examples.empty()) text += "\nExamples:\n";
    for (const std::string& example : command.examples) text += fmt::format("  {}\n", example);
  }
  std::string group;
  for (const Flag& flag : command.flags) {
    if (!is_on_page(flag)) continue;
    if (flag.group != group) text += fmt::format("\n{}:\n", flag.group);
    group = flag.group;
    text += flag_line(topics.empty() && flag.name == "help" ? only_page(flag) : flag);
  }
  text += "\nEvery switch has a --no- form; - and _ are the same in names. Defaults are in [brackets].\n";
  if (!topics.empty() && topic != "all")
    text += fmt::format("Every flag: qmill {0} --help all. By topic, qmill {0} --help TOPIC:\n  {1}\n", command.name,
                        wrapped(fmt::format("{}", fmt::join(topics, ", ")), 2));
  return text;
}

}  // namespace qmill::app
