#include "commands.h"

#include "convert_flags.h"
#include "help.h"

#include <qmill/error.h>

#include <algorithm>

namespace qmill::app {
namespace {

Flag threads_flag(const char* help) { return {"threads", "N", "0", help, "Running"}; }
Flag sync_flag() { return {"sync", "", "on", "wait until the file is on the disk before it gets its name", "Running"}; }
Flag overwrite_flag() { return {"overwrite", "", "off", "replace the output if it exists", "Output"}; }

}  // namespace

std::vector<Command> command_overview() {
  return {
      {.name = "convert",
       .purpose = "quantize a model",
       .usage = {"convert INPUT [OUTPUT] [flags]"},
       .examples = {"qmill -i model.safetensors -o model_int8.safetensors",
                    "qmill convert model/ small.safetensors --t5xxl --report-quality", "qmill -i model.safetensors --dry-run"},
       .run = run_convert,
       .max_operands = 2,
       .host_flags = convert_flags},
      {.name = "plan",
       .purpose = "show what convert would do with every tensor, and the exact size; reads headers only",
       .usage = {"plan INPUT [flags of convert]"},
       .examples = {"qmill plan model.safetensors", "qmill plan model.safetensors --layer-config layers.json --json"},
       .run = run_plan,
       .max_operands = 2,
       .host_flags = convert_flags},
      {.name = "batch",
       .purpose = "convert several models; continues if one fails",
       .usage = {"batch MODEL... [flags]", "batch --directory DIR [flags]"},
       .examples = {"qmill batch a.safetensors b.safetensors --output-dir small",
                    "qmill batch --directory models --pattern '*.safetensors' --dry-run"},
       .run = run_batch,
       .max_operands = kAnyOperands,
       .host_flags = batch_flags},
      {.name = "verify",
       .purpose = "check a file against the rules of ComfyUI and other programs; changes nothing",
       .usage = {"verify FILE"},
       .examples = {"qmill verify model_int8.safetensors"},
       .run = run_verify,
       .flags = {{"data", "", "on", "read scales and codes, too; off: headers and markers only", "Running"}},
       .max_operands = 1},
      {.name = "inspect",
       .purpose = "show what a file holds and how it was made",
       .usage = {"inspect FILE"},
       .examples = {"qmill inspect model_int8.safetensors"},
       .run = run_inspect,
       .max_operands = 1},
      {.name = "compare",
       .purpose = "measure the quality of a quantized file's stored bytes against its source",
       .usage = {"compare QUANTIZED SOURCE"},
       .examples = {"qmill compare model_int8.safetensors model.safetensors"},
       .run = run_compare,
       .flags = {{"calibration-data", "FILE", "", "measure the error of outputs, too, on all sample rows of this file", "Running"},
                 {"quality-threshold", "DB", "30", "count layers with an SQNR below this", "Running"},
                 threads_flag("0: one per processor")},
       .max_operands = 2},
      {.name = "dequantize",
       .purpose = "write a quantized model as a plain one",
       .usage = {"dequantize FILE [OUTPUT]"},
       .examples = {"qmill dequantize model_fp8_scaled.safetensors",
                    "qmill dequantize model_int8.safetensors model_f32.safetensors --dtype f32"},
       .run = run_dequantize,
       .flags = {{"output", "FILE", "", "file to write; default: <input>_<dtype>.safetensors beside the input", "Output", 'o'},
                 {.name = "dtype",
                  .value = "TYPE",
                  .initial = "bf16",
                  .help = "type of the decoded layers: bf16, f16 or f32; other tensors stay as they are",
                  .group = "Output",
                  .choices = {"bf16", "f16", "f32"}},
                 overwrite_flag(),
                 threads_flag("0: one per processor; the bytes are the same for every number"),
                 sync_flag()},
       .max_operands = 2},
      {.name = "edit",
       .purpose = "change the keys of quantization markers; the weights stay as they are",
       .usage = {"edit FILE [-o OUTPUT] [flags]"},
       .examples = {"qmill edit model_int8.safetensors --add-keys '{\"full_precision_matrix_mult\": true}'",
                    "qmill edit model_int8_edited.safetensors --remove-keys full_precision_matrix_mult --quant-filter attention"},
       .run = run_edit,
       .flags = {{"input", "FILE", "", "file to read; the flag may be left out", "Output", 'i'},
                 {"output", "FILE", "", "file to write; default: <input>_edited.safetensors beside the input", "Output", 'o'},
                 overwrite_flag(),
                 {"remove-keys", "KEYS", "", "keys to remove from markers, separated by commas", "Keys"},
                 {"add-keys", "KEYS", "", "keys to add or replace: a JSON object, or 'key': value, 'key': value", "Keys"},
                 {"quant-filter", "REGEX", "", "edit only layers whose name matches", "Keys"},
                 {"save-quant-metadata", "", "off", "write the header's entry again, from all marker tensors", "Keys"},
                 {"edit-quant", "", "off", "older form of this command, as a flag of convert", "Keys"},
                 sync_flag()},
       .max_operands = 2},
      {.name = "calibrate",
       .purpose = "turn sample inputs into small statistics for --calibration-data",
       .usage = {"calibrate ROWS -o STATISTICS"},
       .examples = {"qmill calibrate rows.safetensors -o statistics.safetensors", "qmill calibrate rows.safetensors -o channels.json"},
       .run = run_calibrate,
       .flags = {{"output", "FILE", "", "file to write: .safetensors, or .json for the channel statistics only", "Output", 'o'},
                 overwrite_flag(),
                 threads_flag("0: one per processor; the bytes are the same for every number"),
                 sync_flag()},
       .max_operands = 2},
      {.name = "plugins",
       .purpose = "show which plugins were found, and which were refused and why",
       .usage = {"plugins list", "plugins info NAME"},
       .examples = {"qmill plugins info fp16"},
       .run = run_plugins,
       .max_operands = 2,
       .first_words = {"list", "info"}},
      {.name = "filters",
       .purpose = "show the model filters and what they keep",
       .usage = {"filters list", "filters info NAME"},
       .examples = {"qmill filters info t5xxl"},
       .run = run_filters,
       .max_operands = 2,
       .first_words = {"list", "info"}},
      {.name = "completion",
       .purpose = "print the completion script of a shell",
       .usage = {"completion bash|zsh"},
       .examples = {"source <(qmill completion bash)"},
       .run = run_completion,
       .max_operands = 1,
       .first_words = {"bash", "zsh"}},
      {.name = "man",
       .purpose = "print the manual page",
       .usage = {"man"},
       .examples = {"qmill man > qmill.1 && man -l qmill.1"},
       .run = run_man},
  };
}

Command find_command(const std::string& name) {
  const std::vector<Command> commands = command_overview();
  const auto found = std::find_if(commands.begin(), commands.end(), [&](const Command& command) { return command.name == name; });
  if (found == commands.end()) throw Error(ErrorKind::internal, "there is no command '" + name + "'");
  return *found;
}

std::vector<Command> commands_with_flags(const Host& host) {
  std::vector<Command> commands = command_overview();
  for (Command& command : commands) {
    const std::vector<Flag> added = command.host_flags != nullptr ? command.host_flags(host) : shared_flags();
    command.flags.insert(command.flags.end(), added.begin(), added.end());
  }
  return commands;
}

}  // namespace qmill::app
