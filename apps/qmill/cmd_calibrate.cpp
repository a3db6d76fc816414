#include "commands.h"
#include "simple_command.h"
#include "text.h"

#include <qmill/core/json.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {
int run_calibrate(const Words& words) {
  const SimpleCommand command("calibrate", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  const std::vector<std::string>& operands = arguments.operands();
  if (operands.empty()) throw Error(ErrorKind::usage, "no file of sample rows is given", "qmill calibrate ROWS -o STATISTICS");
  if (operands.size() == 2 && arguments.given("output"))
    throw Error(ErrorKind::usage,
                fmt::format("--output is '{}', and the word '{}' names another; give one", arguments.text("output"), operands[1]));
  StatisticsOptions options;
  options.input = operands[0];
  options.output = operands.size() == 2 ? operands[1] : arguments.text("output");
  if (options.output.empty()) throw Error(ErrorKind::usage, "no output is given", "qmill calibrate ROWS -o STATISTICS");
  options.overwrite = arguments.on("overwrite");
  options.sync = arguments.on("sync");
  options.threads = static_cast<int>(arguments.integer("threads", 0, 1024));
  const StatisticsReport report = write_statistics(command.host(), options, &watch_interrupts());
  if (arguments.on("json")) {
    fmt::print("{}\n", statistics_json(options, report));
    return kDone;
  }
  fmt::print("{}\n  {} ({} distinct), {}\n", options.output.string(), count_text(report.layers.size(), "layer"), report.distinct,
             bytes_text(report.bytes_written));
  for (const std::string& entry : report.unmatched_entries) fmt::print("  left out: '{}' is no sample rows\n", entry);
  for (const std::string& entry : report.empty_entries) fmt::print("  left out: '{}' has 0 rows\n", entry);
  return kDone;
}

}  // namespace qmill::app
