#include "commands.h"
#include "json_output.h"
#include "progress.h"
#include "simple_command.h"
#include "text.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/json.h>
#include <qmill/core/process.h>
#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {
namespace {

DequantizeOptions dequantize_options(const Arguments& arguments) {
  const std::vector<std::string>& operands = arguments.operands();
  if (operands.empty()) throw Error(ErrorKind::usage, "no file is given", "qmill dequantize FILE [OUTPUT]");
  if (operands.size() == 2 && arguments.given("output"))
    throw Error(ErrorKind::usage,
                fmt::format("--output is '{}', and the word '{}' names another; give one", arguments.text("output"), operands[1]));
  DequantizeOptions options;
  options.input = operands[0];
  options.output = operands.size() == 2 ? operands[1] : arguments.text("output");
  options.run.overwrite = arguments.on("overwrite");
  const std::string dtype = arguments.choice("dtype", {"bf16", "f16", "f32"});
  options.dtype = dtype == "bf16" ? DType::bf16 : dtype == "f16" ? DType::f16 : DType::f32;
  options.run.threads = static_cast<int>(arguments.integer("threads", 0, 1024));
  options.run.sync = arguments.on("sync");
  if (options.output.empty()) options.output = default_dequantized(options);
  return options;
}

}  // namespace

int run_dequantize(const Words& words) {
  const SimpleCommand command("dequantize", words);
  if (command.shows_help()) return kDone;
  const Arguments& arguments = command.arguments;
  const DequantizeOptions options = dequantize_options(arguments);
  RunHooks hooks;
  hooks.cancel = &watch_interrupts();
  DequantizeReport report;
  {
    ProgressBar bar;
    hooks.progress = [&](const Progress& progress) { bar.update(progress); };
    report = dequantize(command.host(), options, hooks);
  }
  for (const std::string& warning : report.run.warnings) say(fmt::format("qmill: warning: {}\n", as_flags(warning)));
  if (arguments.on("json")) {
    print_json(spoken(dequantize_json(options, report)));
    return kDone;
  }
  fmt::print("{}\n  decoded    {} into {}\n  size       {}\n  note       what quantization lost stays lost\n", options.output.string(),
             formats_text(report.layers), dtype_name(options.dtype), bytes_text(report.run.bytes_written));
  return kDone;
}

}  // namespace qmill::app
