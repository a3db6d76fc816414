#include "simple_command.h"

#include "commands.h"
#include "help.h"

#include <fmt/format.h>

namespace qmill::app {
namespace {

Command with_flags(const std::string& name, std::vector<Flag> flags) {
  Command command = find_command(name);
  command.flags = std::move(flags);
  for (const Flag& flag : shared_flags()) command.flags.push_back(flag);
  return command;
}

}  // namespace

SimpleCommand::SimpleCommand(const std::string& name, const std::vector<std::string>& words, std::vector<Flag> flags)
    : command(with_flags(name, std::move(flags))), arguments(command, words) {}

bool SimpleCommand::shows_help() const {
  if (!arguments.given("help")) return false;
  fmt::print("{}", command_help(command, true));
  return true;
}

Host SimpleCommand::host() const {
  const std::vector<std::string>& dirs = arguments.list("plugin-dir");
  return Host({dirs.begin(), dirs.end()});
}

}  // namespace qmill::app
