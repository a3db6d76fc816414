#include "convert_flags.h"

#include "help.h"

#include <qmill/core/plan.h>
#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 62;

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

std::vector<Flag> own_flags(const Host& host) {
  std::vector<Flag> flags;
  Group io(flags, "Input and output");
  io.value("input", "MODEL", "", "a .safetensors file, a .safetensors.index.json, or a folder of shards").letter = 'i';
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
  calibration.value("calibration-lora", "FILE", "", "layers that this LoRA touches are rounded with its directions in mind");
  calibration.toggle("bias-correction", true, "where the mean input is known, let biases make up for the error of the mean output");
  calibration.toggle("smoothquant", false, "weight columns by channel_max where neither rows nor a Hessian are known");
  calibration.value("smoothquant-alpha", "A", "0.5", "0 to 1: how much of that comes from the inputs rather than the weights");

  Group layers(flags, "Which layers");
  Flag& filter = layers.value("filter", "NAME", "", "keep what this model's filter says; several may be given");
  filter.is_list = filter.is_common = true;
  for (const ModelFilter* known : host.filters()) layers.toggle(hyphens(known->info().name), false, known->info().summary);
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
  running.value("in-flight", "MIB", "128", "weights and results in memory at once");
  running.toggle("sync", true, "wait until the file is on the disk before it gets its name");
  return flags;
}

std::vector<Flag> host_flags(const Host& host) {
  std::vector<Flag> flags = own_flags(host);
  for (const Flag& flag : shared_flags()) flags.push_back(flag);
  return flags;
}

std::optional<std::int64_t> block_size(const Arguments& arguments, const char* flag) {
  if (!arguments.given(flag)) return std::nullopt;
  return arguments.integer(flag, 1, kLargest);
}

const std::vector<std::string> kScalings = {"row", "tensor", "block", "axis"};

constexpr const char* kBlockSize = "block_size";

// Quantizers that go through columns in blocks have an option of that name. With them --block-size means that one, unless block scaling is
// asked for by name. Null: it means the edge of a block.
const Quantizer* block_size_owner(const Arguments& arguments, const Host& host) {
  if (!arguments.given("block-size") || arguments.on("simple") || arguments.on("no-learned-rounding")) return nullptr;
  const std::string format = arguments.text("format");
  if (arguments.text("scaling-mode") == "block" || host.format(format).implied_scaling(format) == Scaling::block) return nullptr;
  const Quantizer* quantizer = host.find_quantizer(arguments.text("optimizer"));
  if (quantizer == nullptr) return nullptr;
  const std::vector<OptionSpec>& options = quantizer->info().options;
  const bool has_option = std::any_of(options.begin(), options.end(), [](const OptionSpec& option) {
    return same_name(option.name, kBlockSize) && std::holds_alternative<std::int64_t>(option.initial);
  });
  return has_option ? quantizer : nullptr;
}

void set_format(ConvertOptions& options, const Arguments& arguments, const Host& host) {
  options.format = arguments.text("format");
  for (const char* name : {"int8", "fp16"}) {
    if (!arguments.on(name)) continue;
    if ((arguments.given("format") && !same_name(options.format, name)) || (arguments.on("int8") && arguments.on("fp16")))
      throw Error(ErrorKind::usage, fmt::format("--{} and another format are given; choose one", name));
    options.format = name;
  }
  StorageOptions& storage = options.storage;
  const Format& format = host.format(options.format);
  if (arguments.given("convrot") && format.grid() == nullptr)
    throw Error(ErrorKind::usage, fmt::format("--convrot rotates what codes are chosen for, but format '{}' has none", options.format));
  const std::optional<std::int64_t> blocks = block_size(arguments, "block-size");
  std::optional<Scaling> mode;
  if (arguments.given("scaling-mode")) mode = parse_scaling(arguments.choice("scaling-mode", kScalings));
  const bool means_blocks = block_size_owner(arguments, host) == nullptr;
  storage.scaling = agreed_scaling(format, options.format, mode, means_blocks ? blocks : std::nullopt, storage.scaling);
  if (blocks) storage.block_size = *blocks;
  storage.rotation = parse_rotation(arguments.text("convrot"));
  storage.naming = arguments.on("comfy-quant") ? Naming::comfy : Naming::legacy;
  storage.full_precision_matrix_mult = arguments.on("full-precision-matrix-mult");
  storage.legacy_input_scale = arguments.on("input-scale");
  if (storage.legacy_input_scale && storage.naming == Naming::comfy)
    throw Error(ErrorKind::usage, "--input-scale is for legacy names: ComfyUI reads no input scale of int8 layers",
                "leave it out, or add --no-comfy-quant");
  options.save_quant_metadata = arguments.on("save-quant-metadata");
  if (arguments.given("keep-dtype")) {
    const std::string type = arguments.choice("keep-dtype", {"f32", "bf16", "f16"});
    options.keep_dtype = type == "f32" ? DType::f32 : type == "bf16" ? DType::bf16 : DType::f16;
  }
}

void set_quantizer(ConvertOptions& options, const Arguments& arguments, const Host& host) {
  options.quantizer = arguments.text("optimizer");
  if (arguments.on("simple") || arguments.on("no-learned-rounding")) {
    if (arguments.given("optimizer") && !same_name(options.quantizer, "rtn"))
      throw Error(ErrorKind::usage, fmt::format("--simple is --optimizer rtn, but --optimizer is '{}'; choose one", options.quantizer));
    options.quantizer = "rtn";
  }
  options.seed = arguments.integer("manual-seed", -1, kLargest);
  const Quantizer* const takes_block_size = block_size_owner(arguments, host);
  if (takes_block_size != nullptr) {
    const std::string& name = takes_block_size->info().name;
    Options values(takes_block_size->info().options);
    values.parse(name, kBlockSize, arguments.text("block-size"));
    options.quantizer_options[name][kBlockSize] = values.value(kBlockSize);
  }
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
      options.quantizer_options[name][option] = values.value(option);
    }
  }
  const auto cast = options.quantizer_options.find("fp16");
  if (cast != options.quantizer_options.end() && cast->second.contains("overflow"))
    options.clamp_overflow = cast->second.at("overflow") == OptionValue(std::string("clamp"));
}

void set_calibration(ConvertOptions& options, const Arguments& arguments) {
  CalibrationOptions& calibration = options.calibration;
  for (const char* flag : {"calibration-data", "calibration-lora"})
    if (arguments.given(flag) && arguments.text(flag).empty())
      throw Error(ErrorKind::usage, fmt::format("--{} is empty; name a file", flag));
  calibration.data = arguments.text("calibration-data");
  calibration.lora = arguments.text("calibration-lora");
  calibration.bias_correction = arguments.on("bias-correction");
  calibration.smoothquant = arguments.on("smoothquant");
  calibration.smoothquant_alpha = arguments.number("smoothquant-alpha");
  if (calibration.smoothquant_alpha < 0 || calibration.smoothquant_alpha > 1)
    throw Error(ErrorKind::usage,
                fmt::format("--smoothquant-alpha is '{}'; allowed: a number from 0 to 1", arguments.text("smoothquant-alpha")));
  if (arguments.given("smoothquant-alpha") && !calibration.smoothquant)
    throw Error(ErrorKind::usage, "--smoothquant-alpha needs --smoothquant");
  if (calibration.smoothquant && calibration.data.empty())
    throw Error(ErrorKind::usage, "--smoothquant needs --calibration-data FILE: it weights columns by what the inputs are");
}

void set_layers(ConvertOptions& options, const Arguments& arguments, const Host& host) {
  options.filters = arguments.list("filter");
  for (const ModelFilter* filter : host.filters()) {
    const std::string& name = filter->info().name;
    const auto is_this = [&](const std::string& other) { return same_name(other, name); };
    if (arguments.on(hyphens(name)) && std::none_of(options.filters.begin(), options.filters.end(), is_this))
      options.filters.push_back(name);
  }
  options.exclude_layers = arguments.text("exclude-layers");
  options.fallback = {arguments.text("fallback"), block_size(arguments, "fallback-block-size"), arguments.on("fallback-simple")};
  if (options.fallback.type.empty() && (arguments.given("fallback-block-size") || arguments.on("fallback-simple")))
    throw Error(ErrorKind::usage, "--fallback-block-size and --fallback-simple need --fallback TYPE");
  CustomLayers& custom = options.custom;
  custom.pattern = arguments.text("custom-layers");
  custom.type = arguments.text("custom-type");
  custom.block_size = block_size(arguments, "custom-block-size");
  if (arguments.given("custom-scaling-mode")) custom.scaling = parse_scaling(arguments.choice("custom-scaling-mode", kScalings));
  custom.simple = arguments.on("custom-simple");
  custom.heuristic = arguments.on("custom-heur");
  for (const char* flag : {"custom-type", "custom-block-size", "custom-scaling-mode", "custom-simple", "custom-heur"})
    if (arguments.given(flag) && custom.pattern.empty())
      throw Error(ErrorKind::usage, fmt::format("--{} needs --custom-layers REGEX", flag));
  options.skip_inefficient_layers = arguments.on("heur");
  if (arguments.given("layer-config")) options.layer_config = load_layer_config(arguments.text("layer-config"));
  options.layer_config_fullmatch = arguments.on("fullmatch");
  if (options.layer_config_fullmatch && !options.layer_config) throw Error(ErrorKind::usage, "--fullmatch needs --layer-config FILE");
}

// What was given, for the file's metadata: only what changes the file, and no paths.
std::map<std::string, std::string> recorded(const Arguments& arguments, const std::vector<Flag>& flags) {
  std::map<std::string, std::string> given;
  for (const Flag& flag : flags) {
    const bool changes_nothing =
        flag.group == "Running" || flag.group == "Quality" || flag.group == "General" || flag.group == "Input and output";
    const bool changes_names = flag.name == "comfy-quant" || flag.name == "save-quant-metadata" ||
                               flag.name == "full-precision-matrix-mult" || flag.name == "input-scale" || flag.name == "keep-dtype" ||
                               flag.name == "quality-threshold";
    if (!arguments.given(flag.name) || (changes_nothing && !changes_names)) continue;
    std::string value =
        flag.value.empty() ? (arguments.on(flag.name) ? "on" : "off") : fmt::format("{}", fmt::join(arguments.list(flag.name), ","));
    if (flag.name == "layer-config" || flag.name.starts_with("calibration-")) value = std::filesystem::path(value).filename().string();
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
    const std::string help = is_switch ? option.help : fmt::format("{}; {}", option.help, option.allowed());
    flags.push_back({flag.name, is_switch ? "" : "VALUE", initial, help,
                     fmt::format("Options of {} {}", flag.is_shared() ? "the quantizers" : "the quantizer", owners(flag))});
  }
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
  options.overwrite = arguments.on("overwrite");
  set_format(options, arguments, host);
  set_quantizer(options, arguments, host);
  set_calibration(options, arguments);
  set_layers(options, arguments, host);
  options.quality_threshold = arguments.number("quality-threshold");
  if (arguments.given("fail-below")) options.fail_below = arguments.number("fail-below");
  options.threads = static_cast<int>(arguments.integer("threads", 0, 1024));
  options.bytes_in_flight = static_cast<std::uint64_t>(arguments.integer("in-flight", 1, 1 << 24)) << 20;
  options.sync = arguments.on("sync");
  options.recorded = recorded(arguments, convert_flags(host));
  if (options.output.empty()) options.output = default_output(host, options);
  return options;
}

}  // namespace qmill::app
