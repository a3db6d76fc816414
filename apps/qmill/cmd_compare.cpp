#include "commands.h"
#include "simple_command.h"

#include <qmill/core/compare.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {

int run_compare(const Words& words) {
  const SimpleCommand command("compare", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  if (arguments.operands().size() != 2) throw Error(ErrorKind::usage, "two files are needed", "qmill compare QUANTIZED SOURCE");
  const Host host = command.host();
  const std::string& file = arguments.operands()[0];
  const std::unique_ptr<TensorSource> quantized = host.open(file);
  const std::unique_ptr<TensorSource> source = host.open(arguments.operands()[1]);
  std::vector<LayerQuality> layers;
  try {
    layers = compare_models(host, *quantized, *source, static_cast<int>(arguments.integer("threads", 0, 1024)), &watch_interrupts(),
                            arguments.given("calibration-data") ? arguments.text("calibration-data") : "");
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", file));
  }
  if (arguments.on("json"))
    fmt::print("{}\n", quality_json(layers));
  else
    fmt::print("{}", quality_report_text(std::move(layers), arguments.number("quality-threshold")));
  return kDone;
}

}  // namespace qmill::app
