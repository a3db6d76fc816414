// The beginning of every command: its words parsed, its help page shown, its host.
#pragma once

#include "arguments.h"

#include <qmill/core/host.h>

#include <string>
#include <vector>

namespace qmill::app {

// Throws Error(usage) for a folder that does not exist.
Host make_host(const std::vector<std::string>& plugin_dirs);

// Whether help was asked for; then it has been printed and nothing is left to do.
bool shows_help(const Command& command, const Arguments& arguments);

// What --verbose says, for the whole process. Throws Error(usage) that lists what is allowed.
void set_verbosity(const Arguments& arguments);

struct SimpleCommand {
  // `flags` come after those of the table of commands and before those that every command has. Throws Error(usage).
  SimpleCommand(const std::string& name, const std::vector<std::string>& words, const std::vector<Flag>& flags = {});

  const Command command;
  const Arguments arguments;

  bool shows_help() const { return app::shows_help(command, arguments); }

  Host host() const;
};

}  // namespace qmill::app
