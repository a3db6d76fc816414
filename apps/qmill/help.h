// Help pages, from the tables of flags.
#pragma once

#include "arguments.h"

#include <string>

namespace qmill::app {

// All commands, on one screen.
std::string program_help(const std::vector<Command>& commands);

// The page of a topic: "common", "all", or one of help_topics(). Throws Error(usage) that lists the topics for any other.
std::string command_help(const Command& command, const std::string& topic);

// Topics of a command's flags: first those of groups, in the order of the flags; none where one page holds them all.
std::vector<std::string> help_topics(const Command& command);

// "Input and output" -> "files": the topic of flags that name none.
std::string group_topic(const std::string& group);

// "auto|on|off" -> these three: words of the placeholder that stand for themselves.
std::vector<std::string> named_values(const Flag& flag);

// Values of a flag where they are few; of --help, the topics.
std::vector<std::string> value_choices(const Command& command, const Flag& flag);

// Whether a placeholder stands for a file or folder.
bool takes_path(const std::string& placeholder);

// Flags that every command has.
std::vector<Flag> shared_flags();

}  // namespace qmill::app
