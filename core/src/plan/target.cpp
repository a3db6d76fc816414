#include "target.h"

#include "../plugin_host/guard.h"

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
  if (same_name(run_quantizer_, kAuto))
    run_quantizer_ = writes(host.quantizer(kRounding), *run_format_) ? kRounding : quantizer_writing(*run_format_).info().name;
  const Quantizer& quantizer = host.quantizer(run_quantizer_);
  run_quantizer_ = quantizer.info().name;
  const bool asks_for_default_format = same_name(options.format, "int8");
  if (!writes(quantizer, *run_format_)) {
    // A quantizer of one format only brings it along, unless another was asked for.
    if (!asks_for_default_format || quantizer.info().formats.empty())
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", run_quantizer_, options.format));
    run_format_ = &host.format(quantizer.info().formats.front());
  }
}

const Quantizer& TargetResolver::quantizer_writing(const Format& format) const {
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
  if (choice.simple) {
    const Quantizer& rounding = host_.quantizer(kRounding);
    return writes(rounding, format) ? rounding : quantizer_writing(format);
  }
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, format))
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", quantizer.info().name, format.info().name));
    return quantizer;
  }
  const Quantizer& run = host_.quantizer(run_quantizer_);
  if (writes(run, format)) return run;
  const Quantizer& rounding = host_.quantizer(kRounding);
  return writes(rounding, format) ? rounding : quantizer_writing(format);
}

StorageOptions TargetResolver::storage_for(const LayerChoice& choice, const Format& format) const {
  StorageOptions storage = options_.storage;
  const std::optional<Scaling> implied = choice.format ? format.implied_scaling(*choice.format) : format.implied_scaling(options_.format);
  if (choice.format && implied && choice.scaling && *implied != *choice.scaling)
    throw Error(ErrorKind::usage, fmt::format("format '{}' has {} scaling, 'scaling_mode' is {}", *choice.format, scaling_name(*implied),
                                              scaling_name(*choice.scaling)));
  const bool names_tensorwise = choice.format && same_name(*choice.format, "int8_tensorwise");
  if (names_tensorwise && choice.scaling && *choice.scaling != Scaling::row && *choice.scaling != Scaling::tensor)
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' has row or tensor scaling, 'scaling_mode' is {}", *choice.format, scaling_name(*choice.scaling)));
  const auto set_scaling = [&](Scaling scaling) {
    // The run's wish for rotation is a wish for layers that can be rotated.
    if (scaling != Scaling::row && storage.scaling == Scaling::row) storage.rotation = {Rotation::Mode::off};
    storage.scaling = scaling;
  };
  if (implied) set_scaling(*implied);
  if (choice.block_size) {
    storage.block_size = *choice.block_size;
    if (!choice.scaling && !names_tensorwise && !(choice.format && implied)) set_scaling(Scaling::block);
  }
  if (choice.scaling) set_scaling(*choice.scaling);
  if (names_tensorwise && !choice.scaling && storage.scaling != Scaling::tensor) set_scaling(Scaling::row);
  if ((choice.block_size || choice.scaling) && format.grid() == nullptr)
    throw Error(ErrorKind::usage,
                fmt::format("format '{}' has no scales, so a block size or scaling mode says nothing about it", format.info().name));
  if (choice.block_size && storage.scaling != Scaling::block)
    throw Error(ErrorKind::usage, fmt::format("a block size of {} needs block scaling; this is format '{}' with {} scaling",
                                              *choice.block_size, format.info().name, scaling_name(storage.scaling)));
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
