#include "options/rows.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace qmill {
namespace {

constexpr double kSmallestShard = 1e6;  // smaller ones are mistakes of a unit

const std::vector<std::pair<const char*, DType>> kKeptTypes = {{"f32", DType::f32}, {"bf16", DType::bf16}, {"f16", DType::f16}};

// "5GB" is 5 * 10^9, "5GiB" 5 * 2^30.
std::uint64_t parse_bytes(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, double>, 10> kUnits = {
      {{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1024.0 * (1 << 30)}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}};
  double number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  for (char& c : unit)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  for (const auto& [name, bytes] : kUnits)
    if (code == std::errc() && unit == name && number * bytes >= kSmallestShard && number * bytes <= kLargestInteger)
      return static_cast<std::uint64_t>(number * bytes);
  throw Error(ErrorKind::usage, fmt::format("`max_shard_size` is '{}', expected 1MB or more, such as 5GB, 4GiB or 500MB", text));
}

std::optional<DType> kept_type(const std::string& name) {
  for (const auto& [known, dtype] : kKeptTypes)
    if (name == known) return dtype;
  return std::nullopt;
}

}  // namespace

void add_file_rows(Rows& rows) {
  RowGroup files(rows, "Input and output", false);
  OptionRow& input = files.optional(
      "input", "MODEL", std::string(),
      "a .safetensors file, a .safetensors.index.json, a folder of shards, or what another loader reads (docs/sources.md)",
      [](ConvertOptions& options, const OptionValues& values) { options.input = values.text("input"); });
  input.letter = 'i';
  input.is_path = input.is_common = true;
  OptionRow& output =
      files.optional("output", "FILE", std::string(), "file to write; default: <input>_<optimizer>_<format>.safetensors beside the input",
                     [](ConvertOptions& options, const OptionValues& values) { options.output = values.text("output"); });
  output.letter = 'o';
  output.is_path = output.is_common = true;
  files
      .toggle("overwrite", false, "replace the output if it exists",
              [](ConvertOptions& options, const OptionValues& values) { options.run.overwrite = values.on("overwrite"); })
      .is_common = true;

  RowGroup written(rows, "Input and output");
  OptionRow& target = written.value(
      "target", "READER", std::string("comfyui"),
      "the program that the output is for: comfyui keeps layers that ComfyUI cannot load quantized, such as those of CLIP and VAE; any "
      "keeps none for that reason",
      [](ConvertOptions& options, const OptionValues& values) {
        options.target_reader = values.text("target") == "any" ? TargetReader::any : TargetReader::comfyui;
      });
  target.spec.choices = {"comfyui", "any"};
  written.toggle("comfy_quant", true, "use ComfyUI's names and markers; off: legacy .scale_weight",
                 [](ConvertOptions& options, const OptionValues& values) {
                   options.target.storage.naming = values.on("comfy_quant") ? Naming::comfy : Naming::legacy;
                 });
  written.toggle("save_quant_metadata", true, "write the markers to the header", [](ConvertOptions& options, const OptionValues& values) {
    options.written.save_quant_metadata = values.on("save_quant_metadata");
  });
  written.toggle("full_precision_matrix_mult", false, "ask the reader to multiply in full precision",
                 [](ConvertOptions& options, const OptionValues& values) {
                   options.target.storage.full_precision_matrix_mult = values.on("full_precision_matrix_mult");
                 });
  written.toggle("input_scale", false, "legacy names: write .scale_input, too", [](ConvertOptions& options, const OptionValues& values) {
    options.target.storage.legacy_input_scale = values.on("input_scale") || values.on("static_activations");
  });
  written.toggle("static_activations", false, "legacy names: .scale_input is the input_scale of the calibration data",
                 [](ConvertOptions& options, const OptionValues& values) {
                   options.calibration.static_activations = values.on("static_activations");
                 });
  written.toggle(
      "no_normalize_scales", false, "legacy names: a single scale has one dimension instead of none",
      [](ConvertOptions& options, const OptionValues& values) { options.target.storage.vector_scale = values.on("no_normalize_scales"); });
  written.toggle("rename", false,
                 "give a text encoder with names of llama.cpp or its authors the names that ComfyUI looks for (docs/sources.md)",
                 [](ConvertOptions& options, const OptionValues& values) { options.rename = values.on("rename"); });
  written.toggle("dequantize_source", false, "decode an input that is quantized already (docs/sources.md), instead of refusing it",
                 [](ConvertOptions& options, const OptionValues& values) { options.dequantize_source = values.on("dequantize_source"); });
  OptionRow& kept = written.optional(
      "keep_dtype", "f32|bf16|f16", std::string(), "cast floating tensors that are not quantized",
      [](ConvertOptions& options, const OptionValues& values) { options.written.keep_dtype = kept_type(values.text("keep_dtype")); });
  for (const auto& [name, dtype] : kKeptTypes) kept.spec.choices.emplace_back(name);
  OptionRow& overflow = written.value("fp16_overflow", "error|clamp", std::string("error"),
                                      "values beyond the range of F16: an error, or clamped to the largest value",
                                      [](ConvertOptions& options, const OptionValues& values) {
                                        options.written.clamp_overflow = values.text("fp16_overflow") == "clamp";
                                      });
  overflow.spec.choices = {"error", "clamp"};
  written.optional("max_shard_size", "SIZE", std::string(),
                   "write files of at most this size and an index that names them: 5GB, 4GiB, 500MB or a number of bytes, at least 1MB",
                   [](ConvertOptions& options, const OptionValues& values) {
                     if (values.has("max_shard_size")) options.written.max_shard_bytes = parse_bytes(values.text("max_shard_size"));
                   });
}

}  // namespace qmill
