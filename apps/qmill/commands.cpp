#include "commands.h"

#include <qmill/error.h>

#include <algorithm>

namespace qmill::app {

std::vector<Command> command_overview() {
  return {
      {"convert",
       "quantize a model",
       {"convert INPUT [OUTPUT] [flags]"},
       {"qmill -i model.safetensors -o model_int8.safetensors", "qmill convert model/ small.safetensors --t5xxl --report-quality",
        "qmill -i model.safetensors --dry-run"},
       {},
       2},
      {"plan",
       "what convert would do, tensor by tensor, to the byte; reads headers only",
       {"plan INPUT [flags of convert]"},
       {"qmill plan model.safetensors", "qmill plan model.safetensors --layer-config layers.json --json"},
       {},
       2},
      {"inspect", "what a file holds and how it was made", {"inspect FILE"}, {"qmill inspect model_int8.safetensors"}, {}, 1},
      {"compare",
       "quality of a quantized file's stored bytes, against its source",
       {"compare QUANTIZED SOURCE"},
       {"qmill compare model_int8.safetensors model.safetensors"},
       {},
       2},
      {"calibrate",
       "statistics of sample inputs, for --calibration-data: a small file instead of all the rows",
       {"calibrate ROWS -o STATISTICS"},
       {"qmill calibrate rows.safetensors -o statistics.safetensors", "qmill calibrate rows.safetensors -o channels.json"},
       {},
       2},
      {"plugins",
       "which plugins were found, which are refused and why",
       {"plugins list", "plugins info NAME"},
       {"qmill plugins info fp16"},
       {},
       2},
      {"filters", "the model filters and what they keep", {"filters list", "filters info NAME"}, {"qmill filters info t5xxl"}, {}, 2},
  };
}

Command find_command(const std::string& name) {
  const std::vector<Command> commands = command_overview();
  const auto found = std::find_if(commands.begin(), commands.end(), [&](const Command& command) { return command.name == name; });
  if (found == commands.end()) throw Error(ErrorKind::internal, "there is no command '" + name + "'");
  return *found;
}

}  // namespace qmill::app
