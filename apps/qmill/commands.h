// The subcommands: each parses its words, calls core, prints, and returns the exit status.
#pragma once

#include "arguments.h"

#include <string>
#include <vector>

namespace qmill::app {

using Words = std::vector<std::string>;

// Exit statuses.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;
inline constexpr int kQualityBelow = 3;
inline constexpr int kInterrupted = 130;

int run_convert(const Words& words);
int run_plan(const Words& words);
int run_inspect(const Words& words);
int run_compare(const Words& words);
int run_calibrate(const Words& words);
int run_plugins(const Words& words);
int run_filters(const Words& words);

// Without their flags, which need a host: for the overview.
std::vector<Command> command_overview();
Command find_command(const std::string& name);

}  // namespace qmill::app
