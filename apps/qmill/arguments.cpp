#include "arguments.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <boost/program_options.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

namespace qmill::app {
namespace {

namespace po = boost::program_options;

constexpr const char* kOperands = "operand";
constexpr const char* kHelp = "help";

// "--scaling_mode=row" -> "--scaling-mode=row"; what is not a long flag stays.
std::string hyphenated(std::string word) {
  if (!word.starts_with("--")) return word;
  const std::size_t end = std::min(word.find('='), word.size());
  std::replace(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  return word;
}

// Other spellings, with what they mean.
std::string modern(const std::string& word) {
  static const std::map<std::string, std::string> pages = {
      {"-he", "experimental"}, {"--help-experimental", "experimental"}, {"-hf", "filters"}, {"--help-filters", "filters"},
      {"-ha", "advanced"},     {"--help-advanced", "advanced"},
  };
  const auto page = pages.find(word);
  return page == pages.end() ? word : "--help=" + page->second;
}

// "--dry-run foo": a mistyped word of the flag, rather than a file, which has a dot or a slash in its name or exists.
void refuse_mistyped(const Flag& flag, const std::string& word) {
  std::error_code ignored;
  if (word.starts_with("-") || word.find_first_of("./\\*?") != std::string::npos || std::filesystem::exists(word, ignored)) return;
  throw Error(ErrorKind::usage, fmt::format("--{} is '{}'; allowed: {}", flag.name, word, fmt::join(flag.optional_words, ", ")),
              "a file of that name goes before the flag");
}

// Joins "--dry-run analyze" to "--dry-run=analyze", and makes the same of "--dry-run" before any other word, which then stays its own.
std::vector<std::string> prepared(const Command& command, const std::vector<std::string>& words) {
  std::vector<std::string> result;
  const Flag* last = nullptr;  // the flag that is the last word so far, if its value may be left out
  const Flag* list = nullptr;  // the flag that takes words until another one comes
  for (const std::string& raw : words) {
    const std::string word = modern(hyphenated(raw));
    if (list != nullptr && !word.starts_with("-")) {
      if (result.back() == "--" + list->name) result.pop_back();
      result.push_back(fmt::format("--{}={}", list->name, word));
      continue;
    }
    const auto is_list = std::find_if(command.flags.begin(), command.flags.end(),
                                      [&](const Flag& flag) { return flag.takes_words && word == "--" + flag.name; });
    list = is_list == command.flags.end() ? nullptr : &*is_list;
    // A topic that does not exist is to be named as such, so --help takes any word.
    const bool takes =
        last != nullptr && (std::find(last->optional_words.begin(), last->optional_words.end(), word) != last->optional_words.end() ||
                            (last->name == kHelp && !word.starts_with("-")));
    if (takes) {
      result.back() = fmt::format("--{}={}", last->name, word);
      last = nullptr;
      continue;
    }
    if (last != nullptr) refuse_mistyped(*last, word);
    const auto is_word = [&](const Flag& flag) {
      return !flag.optional_words.empty() && (word == "--" + flag.name || (flag.letter != 0 && word == fmt::format("-{}", flag.letter)));
    };
    const auto found = std::find_if(command.flags.begin(), command.flags.end(), is_word);
    last = found == command.flags.end() ? nullptr : &*found;
    result.push_back(last == nullptr ? word : fmt::format("--{}={}", last->name, last->optional_words.front()));
  }
  return result;
}

po::options_description description(const Command& command) {
  po::options_description description;
  for (const Flag& flag : command.flags) {
    const std::string names = flag.letter == 0 ? flag.name : fmt::format("{},{}", flag.name, flag.letter);
    if (flag.value.empty()) {
      description.add_options()(names.c_str(), "");
      if (has_negative(flag)) description.add_options()(("no-" + flag.name).c_str(), "");
    } else if (!flag.optional_words.empty()) {
      description.add_options()(names.c_str(), po::value<std::string>()->implicit_value(flag.optional_words.front()), "");
    } else {
      description.add_options()(names.c_str(), po::value<std::string>(), "");
    }
  }
  description.add_options()(kOperands, po::value<std::vector<std::string>>(), "");
  return description;
}

Error unknown_flag(const Command& command, const std::string& name) {
  std::vector<std::string> known;
  for (const Flag& flag : command.flags) {
    known.push_back("--" + flag.name);
    if (has_negative(flag)) known.push_back("--no-" + flag.name);
  }
  const std::string nearest = nearest_name(name, known);
  return Error(
      ErrorKind::usage,
      fmt::format("{} has no flag '{}'{}", command.name, name, nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)),
      fmt::format("all flags: qmill {} --help all", command.name));
}

Error wrong_syntax(const Command& command, const po::invalid_command_line_syntax& error) {
  const std::string name = error.get_option_name();
  const std::string advice = fmt::format("see qmill {} --help", command.name);
  switch (error.kind()) {
    case po::invalid_syntax::missing_parameter:
    case po::invalid_syntax::empty_adjacent_parameter:
      return {ErrorKind::usage, fmt::format("{} needs a value", name), advice};
    case po::invalid_syntax::extra_parameter:
      return {ErrorKind::usage, fmt::format("{} takes no value", name), fmt::format("{} is on, --no-{} off", name, name.substr(2))};
    default:
      return {ErrorKind::usage, error.what(), advice};
  }
}

}  // namespace

bool has_negative(const Flag& flag) { return flag.value.empty() && !flag.name.starts_with("no-"); }

Arguments::Arguments(const Command& command, const std::vector<std::string>& words) : command_(command) {
  namespace style = po::command_line_style;
  po::positional_options_description positional;
  positional.add(kOperands, -1);
  const po::options_description all = description(command);
  std::vector<po::option> options;
  try {
    options = po::command_line_parser(prepared(command, words))
                  .options(all)
                  .positional(positional)
                  .style(style::unix_style & ~style::allow_guessing)
                  .run()
                  .options;
  } catch (const po::unknown_option& error) {
    throw unknown_flag(command, error.get_option_name());
  } catch (const po::invalid_command_line_syntax& error) {
    throw wrong_syntax(command, error);
  } catch (const po::error& error) {
    throw Error(ErrorKind::usage, error.what(), fmt::format("see qmill {} --help", command.name));
  }
  for (const po::option& option : options) {
    if (option.string_key == kOperands) {
      operands_.insert(operands_.end(), option.value.begin(), option.value.end());
      continue;
    }
    const bool is_negated = option.value.empty() && option.string_key.starts_with("no-") && !has_flag(option.string_key);
    const Flag& known = flag(is_negated ? option.string_key.substr(3) : option.string_key);
    std::vector<std::string>& values = values_[known.name];
    if (known.value.empty()) {
      values = {is_negated ? "off" : "on"};  // the last one counts
    } else if (!values.empty() && !known.is_list) {
      throw Error(ErrorKind::usage, fmt::format("--{} is given twice: '{}' and '{}'", known.name, values.front(), option.value.front()));
    } else {
      values.push_back(option.value.empty() ? known.optional_words.front() : option.value.front());
    }
  }
  if (operands_.size() > command.max_operands)
    throw Error(ErrorKind::usage, fmt::format("{} takes no further word '{}'", command.name, operands_[command.max_operands]),
                fmt::format("see qmill {} --help", command.name));
}

bool Arguments::has_flag(const std::string& name) const {
  return std::any_of(command_.flags.begin(), command_.flags.end(), [&](const Flag& flag) { return flag.name == name; });
}

const Flag& Arguments::flag(const std::string& name) const {
  const auto found = std::find_if(command_.flags.begin(), command_.flags.end(), [&](const Flag& flag) { return flag.name == name; });
  if (found == command_.flags.end()) throw Error(ErrorKind::internal, fmt::format("'--{}' is not in the table of {}", name, command_.name));
  return *found;
}

bool Arguments::on(const std::string& name) const {
  const auto found = values_.find(name);
  return (found == values_.end() ? flag(name).initial : found->second.front()) == "on";
}

std::string Arguments::text(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? flag(name).initial : found->second.front();
}

const std::vector<std::string>& Arguments::list(const std::string& name) const {
  static const std::vector<std::string> none;
  const auto found = values_.find(name);
  return found == values_.end() ? none : found->second;
}

std::vector<std::string> Arguments::words(const std::string& name) const {
  std::vector<std::string> words;
  const bool is_switch = flag(name).value.empty();
  for (const std::string& value : list(name))
    words.push_back(!is_switch ? fmt::format("--{}={}", name, value) : value == "on" ? "--" + name : "--no-" + name);
  return words;
}

std::int64_t Arguments::integer(const std::string& name, std::int64_t at_least, std::int64_t at_most) const {
  const std::string value = text(name);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < at_least || number > at_most)
    throw Error(ErrorKind::usage, fmt::format("--{} is '{}'; allowed: an integer from {} to {}", name, value, at_least, at_most));
  return number;
}

double Arguments::number(const std::string& name) const {
  const std::string value = text(name);
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || !std::isfinite(number))
    throw Error(ErrorKind::usage, fmt::format("--{} is '{}'; allowed: a number", name, value));
  return number;
}

std::string Arguments::choice(const std::string& name, const std::vector<std::string>& allowed) const {
  const std::string value = text(name);
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
    throw Error(ErrorKind::usage, fmt::format("--{} is '{}'; allowed: {}", name, value, fmt::join(allowed, ", ")));
  return value;
}

std::vector<std::string> plugin_dirs(const std::vector<std::string>& words) {
  constexpr std::string_view flag = "--plugin-dir";
  std::vector<std::string> dirs;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string word = hyphenated(words[i]);
    if (word == flag && i + 1 < words.size())
      dirs.push_back(words[++i]);
    else if (word.starts_with(std::string(flag) + "="))
      dirs.push_back(words[i].substr(flag.size() + 1));
  }
  return dirs;
}

}  // namespace qmill::app
