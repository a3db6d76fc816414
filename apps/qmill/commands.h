// The subcommands: each parses its words, calls core, prints, and returns the exit status.
#pragma once

#include "arguments.h"

#include <qmill/core/host.h>

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

// Operands of a command that takes any number of them.
inline constexpr std::size_t kAnyOperands = 1 << 20;

int run_convert(const Words& words);
int run_plan(const Words& words);
int run_batch(const Words& words);
int run_verify(const Words& words);
int run_inspect(const Words& words);
int run_compare(const Words& words);
int run_dequantize(const Words& words);
int run_edit(const Words& words);
int run_calibrate(const Words& words);
int run_plugins(const Words& words);
int run_filters(const Words& words);
int run_completion(const Words& words);
int run_man(const Words& words);

// The table of commands, in the order of the overview; without the flags that all have or that need a host.
std::vector<Command> command_overview();
Command find_command(const std::string& name);
std::vector<Flag> batch_flags(const Host& host);
// With all flags: what completion and the manual page are made of.
std::vector<Command> commands_with_flags(const Host& host);

}  // namespace qmill::app
