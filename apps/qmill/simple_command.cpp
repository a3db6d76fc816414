#include "simple_command.h"

#include "commands.h"
#include "help.h"
#include "json_output.h"

#include <qmill/core/logging.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <filesystem>

namespace qmill::app {
namespace {

Command with_flags(const std::string& name, const std::vector<Flag>& flags) {
  Command command = find_command(name);
  command.flags.insert(command.flags.end(), flags.begin(), flags.end());
  for (const Flag& flag : shared_flags()) command.flags.push_back(flag);
  return command;
}

}  // namespace

Host make_host(const std::vector<std::string>& plugin_dirs) {
  for (const std::string& dir : plugin_dirs) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(dir, ignored))
      throw Error(ErrorKind::usage, fmt::format("--plugin-dir is '{}', expected a folder that exists", dir));
  }
  return Host({plugin_dirs.begin(), plugin_dirs.end()});
}

SimpleCommand::SimpleCommand(const std::string& name, const std::vector<std::string>& words, const std::vector<Flag>& flags)
    : command(with_flags(name, flags)), arguments(command, words) {
  set_verbosity(arguments);
}

bool shows_help(const Command& command, const Arguments& arguments) {
  if (!arguments.given("help")) return false;
  if (arguments.on("json"))
    print_json(flags_json(command));
  else
    fmt::print("{}", command_help(command, arguments.text("help")));
  return true;
}

void set_verbosity(const Arguments& arguments) { setup_logging(arguments.choice("verbose", {"DEBUG", "VERBOSE", "NORMAL", "MINIMAL"})); }

Host SimpleCommand::host() const { return make_host(arguments.list("plugin-dir")); }

}  // namespace qmill::app
