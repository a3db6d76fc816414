// The beginning of every command but convert: its words parsed, its help page shown, its host.
#pragma once

#include "arguments.h"

#include <qmill/core/host.h>

#include <string>
#include <vector>

namespace qmill::app {

struct SimpleCommand {
  // `flags` come before those that every command has. Throws Error(usage).
  SimpleCommand(const std::string& name, const std::vector<std::string>& words, std::vector<Flag> flags = {});

  const Command command;
  const Arguments arguments;

  // Whether help was asked for; then it has been printed and nothing is left to do.
  bool shows_help() const;

  Host host() const;
};

}  // namespace qmill::app
