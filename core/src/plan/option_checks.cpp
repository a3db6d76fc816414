#include "plan/option_checks.h"

#include "plan/target.h"
#include "rules/rules.h"

#include <qmill/core/environment.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/round_to_nearest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace qmill {

void check_device(std::string_view device) {
  if (device == "auto" || device == "cpu") return;
  constexpr std::string_view kCuda = "cuda";
  std::string_view number = device.substr(std::min(device.size(), kCuda.size()));
  const bool is_numbered = number.size() > 1 && number.front() == ':' &&
                           std::all_of(number.begin() + 1, number.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!device.starts_with(kCuda) || !(number.empty() || is_numbered))
    throw Error(ErrorKind::usage, fmt::format("`device` is '{}'; allowed: auto, cpu, cuda, cuda:N", device));
  throw Error(ErrorKind::unsupported, fmt::format("`device` is '{}', but this build computes on the CPU", device),
              "leave it out, or use `device cpu`");
}

namespace {

void check_input_scales(const ConvertOptions& options) {
  const bool is_static = options.calibration.static_activations;
  if (!is_static && !options.target.storage.legacy_input_scale) return;
  const char* const flag = is_static ? "static_activations" : "input_scale";
  if (options.target.storage.naming == Naming::comfy)
    throw Error(ErrorKind::usage, fmt::format("`{}` is for int8 with legacy names: with ComfyUI's names no input scale is written", flag),
                "leave it out, or use `format int8` and `comfy_quant off`");
  if (is_static && options.calibration.data.empty())
    throw Error(ErrorKind::usage,
                "`static_activations` needs `calibration_data FILE`: it stores the input_scale of each layer from that file");
}

void check_layers(const ConvertOptions& options) {
  const CustomLayers& custom = options.layers.custom;
  if (custom.pattern.empty() && (!custom.type.empty() || custom.block_size || custom.scaling || custom.simple || custom.heuristic))
    throw Error(ErrorKind::usage,
                "`custom_type`, `custom_block_size`, `custom_scaling_mode`, `custom_simple` and `custom_heur` need `custom_layers REGEX`");
  if (options.layers.fallback.type.empty() && (options.layers.fallback.block_size || options.layers.fallback.simple))
    throw Error(ErrorKind::usage, "`fallback_block_size` and `fallback_simple` need `fallback TYPE`");
  if (options.layers.config_fullmatch && !options.layers.config) throw Error(ErrorKind::usage, "`fullmatch` needs `layer_config FILE`");
  if (options.calibration.smoothquant_alpha != CalibrationOptions().smoothquant_alpha && !options.calibration.smoothquant)
    throw Error(ErrorKind::usage, "`smoothquant_alpha` needs `smoothquant`");
}

void check_quality(const ConvertOptions& options) {
  if (options.fail_below && !options.run.measures)
    throw Error(ErrorKind::usage, "`fail_below` needs figures, and `quality off` measures none", "leave one of them out");
}

void require_existing(const std::vector<std::filesystem::path>& files) {
  std::error_code code;
  for (const std::filesystem::path& file : files)
    if (!file.empty() && !std::filesystem::exists(file, code))
      throw Error(ErrorKind::io, code ? code.message() : "there is no such file or folder").in(fmt::format("'{}'", file.string()));
}

}  // namespace

void check_options(const ConvertOptions& options) {
  check_device(options.run.device);
  check_layers(options);
  check_input_scales(options);
  check_quality(options);
}

void check_choices(const Host& host, const ConvertOptions& options) {
  check_options(options);
  std::vector<const ModelFilter*> filters;
  for (const std::string& name : options.layers.filters)
    if (!is_reserved_filter_name(name)) filters.push_back(&host.filter(name));
  const Rules rules(host, options.layers, std::move(filters));
  const TargetResolver resolver(host, options.target);
  require_existing({options.calibration.data, options.calibration.lora});
}

std::vector<std::string> idle_options(const ConvertOptions& options) {
  std::vector<std::string> remarks = read_environment().remarks;
  if (options.run.memory.thresholds.ortho)
    remarks.push_back("`stream_ortho_threshold` changes nothing: no dense transform is applied to a weight");
  if (options.target.storage.full_precision_matrix_mult && options.target.storage.naming == Naming::legacy)
    remarks.push_back("`full_precision_matrix_mult` changes nothing with `comfy_quant off`: there is no marker that could say it");
  const bool others_choose = options.layers.config || !options.layers.custom.type.empty() || !options.layers.fallback.type.empty();
  const bool stores_f16 = same_name(options.target.format, "fp16") || same_name(options.target.quantizer, "fp16") || others_choose ||
                          options.written.keep_dtype || options.decode_to || !options.merge.paths.empty();
  if (options.written.clamp_overflow && !stores_f16) remarks.push_back("`fp16_overflow` changes nothing: no tensor is cast to F16");
  if (options.layers.custom.simple && same_name(options.layers.custom.type, qmill::plain_rounding().info().name))
    remarks.push_back(fmt::format("`custom_simple` changes nothing: `custom_type` is '{}'", options.layers.custom.type));
  return remarks;
}

std::vector<std::string> idle_quantizer_options(const ConvertOptions& options, const std::vector<Decision>& decisions) {
  const auto runs = [&](const std::string& name) {
    return std::any_of(decisions.begin(), decisions.end(), [&](const Decision& decision) {
      return decision.action == Action::quantize && same_name(decision.quantizer->info().name, name);
    });
  };
  std::map<std::string, std::pair<bool, std::string>> by_option;  // whether one of its quantizers runs; their names
  for (const auto& [owner, values] : options.target.quantizer_options)
    for (const auto& [option, value] : values) {
      auto& [is_used, owners] = by_option[canonical_name(option)];
      const bool is_of_casts = options.written.clamp_overflow && value == OptionValue(std::string("clamp"));  // of kept tensors, too
      is_used = is_used || is_of_casts || runs(owner);
      owners += fmt::format("{}'{}'", owners.empty() ? "" : ", ", owner);
    }
  std::vector<std::string> warnings;
  for (const auto& [option, use] : by_option)
    if (!use.first) warnings.push_back(fmt::format("the option '{}' of {} changes nothing: no layer is quantized by {}", option, use.second,
                                                       use.second.find(',') == std::string::npos ? "it" : "any of them"));
  return warnings;
}

}  // namespace qmill
