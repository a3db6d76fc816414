#include "target.h"

#include "../plugin_host/guard.h"

#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kAuto = "auto";
constexpr const char* kRounding = "rtn";

bool writes(const Quantizer& quantizer, const Format& format) {
  const std::vector<std::string>& formats = quantizer.info().formats;
  if (formats.empty()) return format.grid() != nullptr;
  return std::any_of(formats.begin(), formats.end(), [&](const std::string& name) { return same_name(name, format.info().name); });
}

}  // namespace

TargetResolver::TargetResolver(const Host& host, const ConvertOptions& options)
    : host_(host), options_(options), run_quantizer_(options.quantizer), run_format_(&host.format(options.format)) {
  // Calibration data makes it gptq; a run without it has nothing better than plain rounding (docs/decisions).
  if (same_name(run_quantizer_, kAuto)) run_quantizer_ = plain_quantizer(*run_format_).info().name;
  const Quantizer& quantizer = host.quantizer(run_quantizer_);
  run_quantizer_ = quantizer.info().name;
  const bool asks_for_default_format = same_name(options.format, "int8");
  if (!writes(quantizer, *run_format_)) {
    // A quantizer of one format only brings it along, unless another was asked for.
    if (!asks_for_default_format || quantizer.info().formats.empty())
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", run_quantizer_, options.format));
    run_format_ = &host.format(quantizer.info().formats.front());
  }
  run_scaling_ = agreed_scaling(*run_format_, options.format, std::nullopt, std::nullopt, options.storage.scaling);
}

const Quantizer& TargetResolver::plain_quantizer(const Format& format) const {
  const Quantizer& rounding = host_.quantizer(kRounding);
  if (writes(rounding, format)) return rounding;
  for (const Quantizer* quantizer : host_.quantizers())
    if (writes(*quantizer, format)) return *quantizer;
  throw Error(ErrorKind::plugin, fmt::format("no plugin that was found writes format '{}'", format.info().name), "see qmill plugins list");
}

const Format& TargetResolver::format_for(const LayerChoice& choice) const {
  if (choice.format) return host_.format(*choice.format);
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, *run_format_)) return host_.format(quantizer.info().formats.empty() ? "int8" : quantizer.info().formats.front());
  }
  // A choice about codes or scales means a format that has them, also where the run casts.
  const bool needs_grid = choice.simple || choice.scaling || choice.block_size;
  return needs_grid && run_format_->grid() == nullptr ? host_.format("int8") : *run_format_;
}

const Quantizer& TargetResolver::quantizer_for(const LayerChoice& choice, const Format& format) const {
  if (choice.simple) return plain_quantizer(format);
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, format))
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", quantizer.info().name, format.info().name));
    return quantizer;
  }
  const Quantizer& run = host_.quantizer(run_quantizer_);
  return writes(run, format) ? run : plain_quantizer(format);
}

StorageOptions TargetResolver::storage_for(const LayerChoice& choice, const Format& format) const {
  StorageOptions storage = options_.storage;
  const std::string& name = choice.format ? *choice.format : format.info().name;
  storage.scaling = agreed_scaling(format, name, choice.scaling, choice.block_size, run_scaling_);
  // The run's wish for rotation is a wish for layers that can be rotated.
  if (storage.scaling != Scaling::row && run_scaling_ == Scaling::row) storage.rotation = {Rotation::Mode::off};
  if (choice.block_size) storage.block_size = *choice.block_size;
  if (choice.full_precision_matrix_mult) storage.full_precision_matrix_mult = *choice.full_precision_matrix_mult;
  return storage;
}

Options TargetResolver::options_for(const LayerChoice& choice, const Quantizer& quantizer) const {
  const std::string& name = quantizer.info().name;
  Options options = guard(name, "options", "", [&] { return Options(quantizer.info().options); });
  for (const auto& [owner, values] : options_.quantizer_options)
    if (same_name(owner, name))
      for (const auto& [option, value] : values) options.set(name, option, value);
  for (const auto& [option, value] : choice.options) options.set(name, option, value);
  return options;
}

ResolvedTarget TargetResolver::resolve(const LayerChoice& choice, const TensorInfo& weight) const {
  const Format& format = format_for(choice);
  const Quantizer& quantizer = quantizer_for(choice, format);
  const StorageOptions storage = storage_for(choice, format);
  return {&quantizer, {&format, format.layout(weight, storage), options_for(choice, quantizer)}, storage.scaling};
}

}  // namespace qmill
