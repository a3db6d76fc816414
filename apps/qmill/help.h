// Help pages, from the tables of flags.
#pragma once

#include "arguments.h"

#include <string>

namespace qmill::app {

// All commands, on one screen.
std::string program_help(const std::vector<Command>& commands);

// `everything`: every flag, else the common ones.
std::string command_help(const Command& command, bool everything);

// Flags that every command has.
std::vector<Flag> shared_flags();

}  // namespace qmill::app
