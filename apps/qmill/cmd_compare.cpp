#include "commands.h"
#include "help.h"
#include "json_output.h"

#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {

int run_compare(const Words& words) {
  Command command = find_command("compare");
  Flag threads;
  threads.name = "threads";
  threads.value = "N";
  threads.initial = "0";
  threads.help = "0: one per processor";
  threads.group = "Running";
  Flag threshold;
  threshold.name = "quality-threshold";
  threshold.value = "DB";
  threshold.initial = "30";
  threshold.help = "count layers whose SQNR is below";
  threshold.group = "Running";
  command.flags = {threshold, threads};
  for (const Flag& flag : shared_flags()) command.flags.push_back(flag);
  const Arguments arguments(command, words);
  if (arguments.given("help")) {
    fmt::print("{}", command_help(command, true));
    return kDone;
  }
  if (arguments.operands().size() != 2) throw Error(ErrorKind::usage, "two files are needed", "qmill compare QUANTIZED SOURCE");
  const std::vector<std::string>& dirs = arguments.list("plugin-dir");
  const Host host({dirs.begin(), dirs.end()});
  const std::string& file = arguments.operands()[0];
  const std::unique_ptr<TensorSource> quantized = host.open(file);
  const std::unique_ptr<TensorSource> source = host.open(arguments.operands()[1]);
  std::vector<LayerQuality> layers;
  try {
    layers = compare_models(host, *quantized, *source, static_cast<int>(arguments.integer("threads", 0, 1024)), &watch_interrupts());
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", file));
  }
  if (arguments.on("json"))
    print_json(quality_json(layers));
  else
    fmt::print("{}", quality_report_text(std::move(layers), arguments.number("quality-threshold")));
  return kDone;
}

}  // namespace qmill::app
