#include "convert_flags.h"

#include "flag_pages.h"
#include "help.h"

#include <qmill/core/conversion.h>
#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace qmill::app {
namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 62;

constexpr std::array<std::pair<const char*, const char*>, 4> kSteps = {{{"hadamard", "a weight is rotated"},
                                                                        {"hessian", "sample rows are read"},
                                                                        {"ldlq", "a weight is rounded with error feedback"},
                                                                        {"ortho", "a dense transform is applied"}}};

constexpr std::array<std::pair<const char*, const char*>, 3> kBf16Thresholds = {
    {{"bf16-threshold", "1000000"}, {"bf16-hadamard-threshold", "500000"}, {"bf16-hessian-threshold", "1000000"}}};

// Flags of one group, in the order of the help page.
class Group {
 public:
  Group(std::vector<Flag>& flags, std::string name) : flags_(flags), name_(std::move(name)) {}

  Flag& value(std::string name, std::string placeholder, std::string initial, std::string help) {
    return add({std::move(name), std::move(placeholder), std::move(initial), std::move(help), name_});
  }
  Flag& toggle(std::string name, bool on, std::string help) {
    return add({std::move(name), "", on ? "on" : "off", std::move(help), name_});
  }

 private:
  Flag& add(Flag flag) {
    flags_.push_back(std::move(flag));
    return flags_.back();
  }

  std::vector<Flag>& flags_;
  std::string name_;
};

std::string hyphens(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string option_flag(const Quantizer& quantizer, const OptionSpec& option) {
  return hyphens(option.flag.empty() ? quantizer.info().name + "-" + option.name : option.flag);
}

// A flag that sets an option of one quantizer, or of several that name the same flag for it.
struct PluginFlag {
  std::string name;
  OptionSpec option;  // the first one
  std::vector<std::pair<const Quantizer*, std::string>> sets;

  bool is_shared() const { return sets.size() > 1; }
};

// One for every option of every plugin whose name is free; those that are shared come last.
std::vector<PluginFlag> plugin_flags(const Host& host, const std::vector<Flag>& own_flags) {
  std::vector<PluginFlag> flags;
  const auto find = [&](const std::string& name) {
    return std::find_if(flags.begin(), flags.end(), [&](const PluginFlag& flag) { return flag.name == name; });
  };
  const auto is_own = [&](const std::string& name) {
    return std::any_of(own_flags.begin(), own_flags.end(), [&](const Flag& flag) { return flag.name == name; });
  };
  for (const Quantizer* quantizer : host.quantizers())
    for (const OptionSpec& option : quantizer->info().options) {
      std::string name = option_flag(*quantizer, option);
      const auto same = find(name);
      const auto is_shared_by = [&](const PluginFlag& other) {
        return !option.flag.empty() && other.option.flag == option.flag && other.option.initial.index() == option.initial.index() &&
               other.sets.back().first != quantizer;
      };
      if (same != flags.end() && is_shared_by(*same)) {
        same->sets.emplace_back(quantizer, option.name);
        continue;
      }
      if (same != flags.end() || is_own(name)) name = hyphens(quantizer->info().name + "-" + option.name);
      if (find(name) != flags.end() || is_own(name)) continue;  // still reachable through a layer configuration
      flags.push_back({name, option, {{quantizer, option.name}}});
    }
  std::stable_partition(flags.begin(), flags.end(), [](const PluginFlag& flag) { return !flag.is_shared(); });
  return flags;
}

std::string owners(const PluginFlag& flag) {
  std::string names;
  for (const auto& [quantizer, option] : flag.sets) names += fmt::format("{}{}", names.empty() ? "" : ", ", quantizer->info().name);
  return names;
}

// `filters` get a switch of their own each.
std::vector<Flag> own_flags(const std::vector<const ModelFilter*>& filters) {
  std::vector<Flag> flags;
  Group io(flags, "Input and output");
  io.value("input", "MODEL", "",
           "a .safetensors file, a .safetensors.index.json, a folder of shards, or what another loader reads (docs/sources.md)")
      .letter = 'i';
  io.value("output", "FILE", "", "what to write; left out: <input>_<optimizer>_<format>.safetensors beside the input").letter = 'o';
  io.toggle("overwrite", false, "replace the output if it exists");
  io.value("dry-run", "analyze|create-template", "",
           "write nothing: print what would become of every tensor, or a layer configuration to fill in")
      .optional_words = {"analyze", "create-template"};
  for (Flag& flag : flags) flag.is_common = true;
  io.toggle("comfy-quant", true, "ComfyUI's names and markers; off: legacy .scale_weight");
  io.toggle("save-quant-metadata", true, "the markers also in the header");
  io.toggle("full-precision-matrix-mult", false, "ask the reader to multiply in full precision");
  io.toggle("input-scale", false, "legacy names: write .scale_input, too");
  io.toggle("static-activations", false, "legacy names: .scale_input is the input_scale of the calibration data");
  io.toggle("no-normalize-scales", false, "legacy names: a single scale has one dimension instead of none");
  io.toggle("dequantize-source", false, "decode an input that is quantized already (docs/sources.md), instead of refusing it");
  io.value("keep-dtype", "f32|bf16|f16", "", "cast floating tensors that are not quantized");

  Group format(flags, "Format");
  format.value("format", "NAME", "int8", "int8, int4 or fp16, or a format of a plugin").is_common = true;
  format.toggle("int8", false, "short for --format int8");
  format.toggle("fp16", false, "short for --format fp16").is_common = true;
  format.value("scaling-mode", "MODE", "row", "one scale per row, tensor, block or axis; ComfyUI reads row and tensor").is_common = true;
  format.value("block-size", "N", "128",
               "edge of a block; given without --scaling-mode, it means block, or the option block_size of the optimizer that has one");
  format
      .value("convrot", "auto|any|off|G", "auto",
             "store in the regular-Hadamard basis: auto = groups of 256 where 256 divides the columns, any = the largest of "
             "256, 64, 16 that does, G = a power of 4")
      .is_common = true;

  Group quantizer(flags, "Quantizer");
  quantizer.value("optimizer", "NAME", "auto", "who chooses the values: auto, or one of qmill plugins list").is_common = true;
  quantizer.toggle("simple", false, "short for --optimizer rtn");
  quantizer.toggle("no-learned-rounding", false, "another name of --simple");
  quantizer.value("manual-seed", "N", "0", "for quantizers that draw random numbers; -1: a new one, printed and stored");

  Group calibration(flags, "Calibration");
  calibration
      .value("calibration-data", "FILE", "", "sample rows or statistics of the layers' inputs, .safetensors or .json (docs/calibration.md)")
      .is_common = true;
  calibration.value("calib-samples", "N", "6144", "rows per layer that are used at most, evenly spaced over those of the data");
  calibration.value("calibration-lora", "FILE", "", "layers that this LoRA touches are rounded with its directions in mind");
  calibration.toggle("bias-correction", true, "where the mean input is known, let biases make up for the error of the mean output");
  calibration.toggle("smoothquant", false, "weight columns by channel_max where neither rows nor a Hessian are known");
  calibration.value("smoothquant-alpha", "A", "0.5", "0 to 1: how much of that comes from the inputs rather than the weights");

  Group merge(flags, "LoRA");
  merge.value("merge-lora", "FILE", "",
              "merge this LoRA into the model before anything else (docs/lora.md); FILE:0.8 sets its own strength");
  Flag& loras = merge.value("merge-loras", "FILE...", "", "merge several, in this order; --merge-lora comes last");
  loras.is_list = loras.takes_words = true;
  merge.value("merge-lora-scale", "S", "1", "strength of all of them");
  merge.toggle("merge-lora-dampen", true, "of several, weaken number i, counted from 0, by 0.9^i");

  Group layers(flags, "Which layers");
  Flag& filter = layers.value("filter", "NAME", "",
                              "keep what this filter says (qmill filters list), or auto: that of the model at hand; several may be given");
  filter.is_list = filter.is_common = true;
  for (const ModelFilter* known : filters) layers.toggle(hyphens(known->info().name), false, known->info().summary);
  layers.value("exclude-layers", "REGEX", "", "keep tensors whose name it matches").is_common = true;
  layers.value("fallback", "TYPE", "",
               "convert excluded layers to this format (int8, fp16) or with this quantizer, instead of keeping them");
  layers.value("fallback-block-size", "N", "", "block scaling for them");
  layers.toggle("fallback-simple", false, "plain rounding for them");
  layers.value("custom-layers", "REGEX", "", "treat tensors whose name it matches in a way of their own").is_common = true;
  layers.value("custom-type", "TYPE", "", "their format (int8, fp16) or quantizer; required with --custom-layers").is_common = true;
  layers.value("custom-block-size", "N", "", "block scaling for them");
  layers.value("custom-scaling-mode", "MODE", "", "scaling for them");
  layers.toggle("custom-simple", false, "plain rounding for them");
  layers.toggle("custom-heur", false, "--heur for them");
  layers.toggle("heur", false, "keep layers that are small, do not divide into blocks, or round badly");
  layers.value("layer-config", "FILE", "", "choices per layer, as JSON (docs/layer-config.md)").is_common = true;
  layers.toggle("fullmatch", false, "its patterns must match whole names");

  Group quality(flags, "Quality");
  quality.toggle("report-quality", false, "print the quality of every layer").is_common = true;
  quality.value("report", "FILE", "", "write the result as JSON to a file");
  quality.value("quality-threshold", "DB", "30", "warn of layers whose SQNR is below");
  quality.value("fail-below", "DB", "", "publish nothing and exit with 3 if a layer's SQNR is below");

  Group running(flags, "Running");
  running.value("threads", "N", "0", "0: one per processor; the bytes are the same for every number");
  running.value("device", "DEVICE", "auto", "auto, cpu, or cuda[:N]; this build computes on the CPU");
  running.toggle("sync", true, "wait until the file is on the disk before it gets its name");

  Group memory(flags, "Memory");
  memory.value("streaming-mode", "MODE", "balanced",
               "off: read everything first; minimal, balanced, aggressive: 512, 128, 32 MiB of weights and results at once, but at most "
               "1/2, 1/4, 1/16 of the free memory; auto: by the size of the model. The default is what STREAMING_AGGRESSIVENESS says "
               "(conservative, balanced, aggressive), if it is set");
  memory.value("in-flight", "MIB", "", "weights and results in memory at once, instead of what the mode says");
  memory.toggle("low-memory", false, "one layer at a time");
  memory.toggle("no-memory-limits", false, "no limit at all");
  for (const auto& [step, what] : kSteps)
    memory.value(fmt::format("stream-{}-threshold", step), "N", "",
                 fmt::format("values of a matrix above which {} in pieces, with the same result", what));
  memory.toggle("streaming", false, "old name of --streaming-mode balanced");
  memory.toggle("streaming-aggressive", false, "old name of --streaming-mode aggressive");

  Group gpus(flags, "For GPUs");  // flags of other tools' command lines: checked, and said to change nothing here
  gpus.value("bf16-compute", "auto|on|off", "auto", "compute in BF16 on a GPU; a CPU computes in F32");
  for (const auto& [flag, initial] : kBf16Thresholds)
    gpus.value(flag, "N", initial, "values of a matrix from which a GPU computes in BF16");
  gpus.toggle("verbose-pinned", false, "say what goes to a GPU through pinned memory");
  return flags;
}

// Filters whose name is free as a flag; the others are reached through --filter.
std::vector<const ModelFilter*> filters_with_flags(const Host& host) {
  std::vector<Flag> taken = own_flags({});
  for (const Flag& flag : shared_flags()) taken.push_back(flag);
  std::vector<const ModelFilter*> filters = host.filters();
  std::erase_if(filters, [&](const ModelFilter* filter) {
    return std::any_of(taken.begin(), taken.end(), [&](const Flag& flag) { return same_name(flag.name, filter->info().name); });
  });
  return filters;
}

std::vector<Flag> host_flags(const Host& host) {
  std::vector<Flag> flags = own_flags(filters_with_flags(host));
  for (const Flag& flag : shared_flags()) flags.push_back(flag);
  return flags;
}

std::optional<std::int64_t> block_size(const Arguments& arguments, const char* flag) {
  if (!arguments.given(flag)) return std::nullopt;
  return arguments.integer(flag, 1, kLargest);
}

const std::vector<std::string> kScalings = {"row", "tensor", "block", "axis"};

constexpr const char* kBlockSize = "block_size";

// Returns the quantizer that takes --block-size as its option, if one does.
const Quantizer* set_format(ConvertOptions& options, const Arguments& arguments, const Host& host) {
  options.target.format = arguments.text("format");
  for (const char* name : {"int8", "fp16"}) {
    if (!arguments.on(name)) continue;
    if ((arguments.given("format") && !same_name(options.target.format, name)) || (arguments.on("int8") && arguments.on("fp16")))
      throw Error(ErrorKind::usage, fmt::format("--{} and another format are given; choose one", name));
    options.target.format = name;
  }
  StorageOptions& storage = options.target.storage;
  const Format& format = host.format(options.target.format);
  if (arguments.given("convrot") && format.grid() == nullptr)
    throw Error(ErrorKind::usage, fmt::format("--convrot rotates what codes are chosen for, but format '{}' has none", options.target.format));
  std::optional<Scaling> mode;
  if (arguments.given("scaling-mode")) mode = parse_scaling(arguments.choice("scaling-mode", kScalings));
  const Quantizer* const block_size_owner = choose_scaling(options.target, host, mode, block_size(arguments, "block-size"));
  storage.rotation = parse_rotation(arguments.text("convrot"));
  storage.naming = arguments.on("comfy-quant") ? Naming::comfy : Naming::legacy;
  storage.full_precision_matrix_mult = arguments.on("full-precision-matrix-mult");
  storage.legacy_input_scale = arguments.on("input-scale") || arguments.on("static-activations");
  storage.vector_scale = arguments.on("no-normalize-scales");
  options.written.save_quant_metadata = arguments.on("save-quant-metadata");
  if (arguments.given("keep-dtype")) {
    const std::string type = arguments.choice("keep-dtype", {"f32", "bf16", "f16"});
    options.written.keep_dtype = type == "f32" ? DType::f32 : type == "bf16" ? DType::bf16 : DType::f16;
  }
  return block_size_owner;
}

void set_quantizer(ConvertOptions& options, const Arguments& arguments) {
  options.target.quantizer = arguments.text("optimizer");
  if (arguments.on("simple") || arguments.on("no-learned-rounding")) {
    if (arguments.given("optimizer") && !same_name(options.target.quantizer, "rtn"))
      throw Error(ErrorKind::usage, fmt::format("--simple is --optimizer rtn, but --optimizer is '{}'; choose one", options.target.quantizer));
    options.target.quantizer = "rtn";
  }
  options.seed = arguments.integer("manual-seed", -1, kLargest);
}

void set_quantizer_options(ConvertOptions& options, const Arguments& arguments, const Host& host, const Quantizer* takes_block_size) {
  for (const PluginFlag& flag : plugin_flags(host, host_flags(host))) {
    if (!arguments.given(flag.name)) continue;
    for (const auto& [quantizer, option] : flag.sets) {
      if (quantizer == takes_block_size && same_name(option, kBlockSize))
        throw Error(ErrorKind::usage,
                    fmt::format("--block-size and --{} set the same option of '{}'; give one", flag.name, quantizer->info().name));
      const std::string& name = quantizer->info().name;
      Options values(quantizer->info().options);
      if (std::holds_alternative<bool>(flag.option.initial))
        values.set(name, option, arguments.on(flag.name));
      else
        values.parse(name, option, arguments.text(flag.name));
      options.target.quantizer_options[name][option] = values.value(option);
    }
  }
  const auto cast = options.target.quantizer_options.find("fp16");
  if (cast != options.target.quantizer_options.end() && cast->second.contains("overflow"))
    options.written.clamp_overflow = cast->second.at("overflow") == OptionValue(std::string("clamp"));
}

void set_calibration(ConvertOptions& options, const Arguments& arguments) {
  CalibrationOptions& calibration = options.calibration;
  for (const char* flag : {"calibration-data", "calibration-lora"})
    if (arguments.given(flag) && arguments.text(flag).empty())
      throw Error(ErrorKind::usage, fmt::format("--{} is empty; name a file", flag));
  calibration.data = arguments.text("calibration-data");
  calibration.lora = arguments.text("calibration-lora");
  calibration.samples = arguments.integer("calib-samples", 1, kLargest);
  calibration.static_activations = arguments.on("static-activations");
  calibration.bias_correction = arguments.on("bias-correction");
  calibration.smoothquant = arguments.on("smoothquant");
  calibration.smoothquant_alpha = arguments.number("smoothquant-alpha");
  if (arguments.given("smoothquant-alpha") && !calibration.smoothquant)
    throw Error(ErrorKind::usage, "--smoothquant-alpha needs --smoothquant");
}

void set_merge(ConvertOptions& options, const Arguments& arguments) {
  MergeOptions& merge = options.merge;
  std::vector<std::string> files = arguments.list("merge-loras");
  if (arguments.given("merge-lora")) files.push_back(arguments.text("merge-lora"));
  for (const std::string& file : files) {
    const LoraToMerge lora = parse_lora_to_merge(file);
    merge.paths.push_back(lora.file);
    merge.strengths.push_back(lora.strength);
  }
  merge.scale = arguments.number("merge-lora-scale");
  merge.dampen = arguments.on("merge-lora-dampen");
  for (const char* flag : {"merge-lora-scale", "merge-lora-dampen"})
    if (files.empty() && arguments.given(flag))
      throw Error(ErrorKind::usage, fmt::format("--{} needs --merge-lora or --merge-loras", flag));
}

void set_layers(ConvertOptions& options, const Arguments& arguments, const Host& host) {
  options.layers.filters = arguments.list("filter");
  for (const ModelFilter* filter : filters_with_flags(host)) {
    const std::string& name = filter->info().name;
    const auto is_this = [&](const std::string& other) { return same_name(other, name); };
    if (arguments.on(hyphens(name)) && std::none_of(options.layers.filters.begin(), options.layers.filters.end(), is_this))
      options.layers.filters.push_back(name);
  }
  options.layers.exclude = arguments.text("exclude-layers");
  options.layers.fallback = {arguments.text("fallback"), block_size(arguments, "fallback-block-size"), arguments.on("fallback-simple")};
  CustomLayers& custom = options.layers.custom;
  custom.pattern = arguments.text("custom-layers");
  custom.type = arguments.text("custom-type");
  custom.block_size = block_size(arguments, "custom-block-size");
  if (arguments.given("custom-scaling-mode")) custom.scaling = parse_scaling(arguments.choice("custom-scaling-mode", kScalings));
  custom.simple = arguments.on("custom-simple");
  custom.heuristic = arguments.on("custom-heur");
  options.layers.skip_inefficient = arguments.on("heur");
  if (arguments.given("layer-config")) options.layers.config = load_layer_config(arguments.text("layer-config"));
  options.layers.config_fullmatch = arguments.on("fullmatch");
}

void set_memory(ConvertOptions& options, const Arguments& arguments) {
  MemoryOptions& memory = options.run.memory;
  if (arguments.given("streaming-mode")) memory.mode = parse_streaming_mode(arguments.text("streaming-mode"));
  for (const auto& [flag, mode] :
       {std::pair("streaming", StreamingMode::balanced), std::pair("streaming-aggressive", StreamingMode::aggressive)}) {
    if (!arguments.on(flag)) continue;
    if (memory.mode && *memory.mode != mode)
      throw Error(ErrorKind::usage,
                  fmt::format("--{} is an old name of --streaming-mode {}, and another mode is given", flag, streaming_mode_name(mode)),
                  "give one");
    memory.mode = mode;
  }
  if (arguments.given("in-flight")) memory.bytes_in_flight = static_cast<std::uint64_t>(arguments.integer("in-flight", 1, 1 << 24)) << 20;
  memory.low_memory = arguments.on("low-memory");
  memory.no_limits = arguments.on("no-memory-limits");
  std::map<std::string, std::optional<std::int64_t>> thresholds;
  for (const auto& [step, what] : kSteps) {
    const std::string flag = fmt::format("stream-{}-threshold", step);
    if (arguments.given(flag)) thresholds[step] = arguments.integer(flag, 1, kLargest);
  }
  memory.thresholds = streaming_thresholds(thresholds);
}

void set_device(ConvertOptions& options, const Arguments& arguments) {
  options.run.device = arguments.text("device");
  std::vector<std::string>& remarks = options.remarks;
  const auto for_gpus = [&](const std::string& flag) {
    remarks.push_back(fmt::format("--{} is for GPUs: it changes nothing on a CPU", flag));
  };
  if (arguments.choice("bf16-compute", {"auto", "on", "off"}) == "on") for_gpus("bf16-compute");
  for (const auto& [flag, initial] : kBf16Thresholds)
    if (arguments.integer(flag, 0, kLargest); arguments.given(flag)) for_gpus(flag);
  if (arguments.on("verbose-pinned")) for_gpus("verbose-pinned");
  if (arguments.given("calib-samples") && options.calibration.data.empty())
    remarks.push_back("--calib-samples changes nothing without --calibration-data: noise says nothing about real inputs");
}

// What was given, for the file's metadata: only what changes the file, and no paths.
std::map<std::string, std::string> recorded(const Arguments& arguments, const std::vector<Flag>& flags) {
  std::map<std::string, std::string> given;
  for (const Flag& flag : flags) {
    const bool changes_nothing = flag.group == "Running" || flag.group == "Memory" || flag.group == "For GPUs" || flag.group == "Quality" ||
                                 flag.group == "General" || flag.group == "Input and output";
    const bool changes_names = flag.name == "comfy-quant" || flag.name == "save-quant-metadata" ||
                               flag.name == "full-precision-matrix-mult" || flag.name == "input-scale" || flag.name == "keep-dtype" ||
                               flag.name == "dequantize-source" || flag.name == "quality-threshold";
    if (!arguments.given(flag.name) || (changes_nothing && !changes_names)) continue;
    std::vector<std::string> values = arguments.list(flag.name);
    if (flag.name == "layer-config" || flag.name.starts_with("calibration-") || flag.name.starts_with("merge-lora"))
      for (std::string& each : values) each = std::filesystem::path(each).filename().string();
    const std::string value = flag.value.empty() ? (arguments.on(flag.name) ? "on" : "off") : fmt::format("{}", fmt::join(values, ","));
    if (value != flag.initial) given[flag.name] = value;
  }
  return given;
}

}  // namespace

std::vector<Flag> convert_flags(const Host& host) {
  const std::vector<Flag> own = host_flags(host);
  std::vector<Flag> flags = own;
  for (const PluginFlag& flag : plugin_flags(host, own)) {
    const OptionSpec& option = flag.option;
    const bool is_switch = std::holds_alternative<bool>(option.initial);
    std::string initial = option_text(option.initial);
    if (is_switch) initial = std::get<bool>(option.initial) ? "on" : "off";
    const bool is_choice = !option.choices.empty();
    const std::string help = is_switch || is_choice ? option.help : fmt::format("{}; {}", option.help, option.allowed());
    const std::string placeholder = is_switch ? "" : is_choice ? fmt::format("{}", fmt::join(option.choices, "|")) : "VALUE";
    flags.push_back({flag.name, placeholder, initial, help,
                     fmt::format("Options of {} {}", flag.is_shared() ? "the quantizers" : "the quantizer", owners(flag))});
    flags.back().choices = option.choices;
    for (const auto& [quantizer, name] : flag.sets) flags.back().topics.push_back(hyphens(quantizer->info().name));
    flags.back().topics.emplace_back("advanced");
    if (!flag.is_shared() && flag.sets.front().first->info().uses_calibration) flags.back().topics.emplace_back("experimental");
  }
  add_pages(flags, host);
  return flags;
}

ConvertOptions convert_options(const Arguments& arguments, const Host& host) {
  ConvertOptions options;
  const std::vector<std::string>& operands = arguments.operands();
  const auto path = [&](const char* flag, std::size_t operand) -> std::string {
    if (arguments.given(flag) && operands.size() > operand)
      throw Error(ErrorKind::usage,
                  fmt::format("--{} is '{}', and the word '{}' names another; give one", flag, arguments.text(flag), operands[operand]));
    return operands.size() > operand ? operands[operand] : arguments.text(flag);
  };
  options.input = path("input", 0);
  options.output = path("output", 1);
  if (options.input.empty()) throw Error(ErrorKind::usage, "no input is given", "qmill -i MODEL.safetensors [-o OUTPUT.safetensors]");
  options.run.overwrite = arguments.on("overwrite");
  options.dequantize_source = arguments.on("dequantize-source");
  set_quantizer(options, arguments);
  const Quantizer* const takes_block_size = set_format(options, arguments, host);
  set_quantizer_options(options, arguments, host, takes_block_size);
  set_calibration(options, arguments);
  set_merge(options, arguments);
  set_layers(options, arguments, host);
  options.quality_threshold = arguments.number("quality-threshold");
  if (arguments.given("fail-below")) options.fail_below = arguments.number("fail-below");
  options.run.threads = static_cast<int>(arguments.integer("threads", 0, 1024));
  set_memory(options, arguments);
  set_device(options, arguments);
  options.run.sync = arguments.on("sync");
  options.recorded = recorded(arguments, convert_flags(host));
  if (options.output.empty()) options.output = default_output(host, options);
  return options;
}

}  // namespace qmill::app
