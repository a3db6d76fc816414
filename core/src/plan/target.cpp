#include "plan/target.h"

#include "calibration/calibration.h"
#include "host/guard.h"

#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kAuto = "auto";
constexpr const char* kRounding = "rtn";
constexpr const char* kCalibrated = "gptq";
constexpr const char* kDefaultFormat = "int8";

bool is_among(const std::vector<std::string>& formats, const Format& format) {
  return std::any_of(formats.begin(), formats.end(), [&](const std::string& name) { return same_name(name, format.info().name); });
}

bool writes(const Quantizer& quantizer, const Format& format) {
  const QuantizerInfo& info = quantizer.info();
  if (is_among(info.own_formats, format)) return true;
  return info.formats.empty() ? format.grid() != nullptr : is_among(info.formats, format);
}

}  // namespace

bool may_be_automatic(const Host&, const Quantizer& quantizer) {
  return quantizer.info().rounds_to_nearest || same_name(quantizer.info().name, kCalibrated);
}

TargetResolver::TargetResolver(const Host& host, const TargetOptions& options, const Calibration* calibration)
    : host_(host),
      options_(options),
      calibration_(calibration),
      run_quantizer_(options.quantizer),
      run_format_(&host.format(options.format)) {
  if (same_name(run_quantizer_, kAuto)) run_quantizer_ = automatic();
  const Quantizer& quantizer = host.quantizer(run_quantizer_);
  run_quantizer_ = quantizer.info().name;
  const bool asks_for_default_format = same_name(options.format, kDefaultFormat);
  if (!writes(quantizer, *run_format_)) {
    // A quantizer of one format only brings it along, unless another was asked for.
    if (!asks_for_default_format || quantizer.info().formats.empty())
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", run_quantizer_, options.format));
    run_format_ = &host.format(quantizer.info().formats.front());
  }
  run_scaling_ = agreed_scaling(*run_format_, options.format, std::nullopt, std::nullopt, options.storage.scaling);
  StorageWish wish = wish_for({}, *run_format_);
  usual_format_ = &adapt(wish, quantizer, options_for({}, quantizer));
  usual_scaling_ = wish.storage.scaling;
}

std::string TargetResolver::automatic() {
  const std::string plain = plain_quantizer(*run_format_).info().name;
  if (run_format_->grid() == nullptr) {
    why_ = run_format_->info().takes_any_shape ? fmt::format("format '{}' has nothing to choose", run_format_->info().name)
                                               : fmt::format("it writes format '{}'", run_format_->info().name);
    return plain;
  }
  // Without real inputs nothing better than plain rounding is known (docs/decisions).
  if (calibration_ == nullptr || calibration_->account().informed() == 0) {
    why_ = "there is no calibration data";
    return plain;
  }
  try {
    const Quantizer* calibrated = host_.find_quantizer(kCalibrated);
    if (calibrated == nullptr) {
      why_ = fmt::format("the plugin '{}', which uses calibration data, is not installed", kCalibrated);
    } else if (!writes(*calibrated, *run_format_)) {
      why_ = fmt::format("quantizer '{}' does not write format '{}'", kCalibrated, run_format_->info().name);
    } else {
      const CalibrationAccount& account = calibration_->account();
      why_ = fmt::format("there is calibration data of {} of {} layers", account.informed(), account.layers);
      if (account.informed() < account.layers) why_ += fmt::format("; {} for the others", plain);
      return calibrated->info().name;
    }
  } catch (const Error& error) {
    why_ = fmt::format("the plugin '{}' cannot be used: {}", kCalibrated, error.message());
  }
  return plain;
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
    if (!writes(quantizer, *run_format_))
      return host_.format(quantizer.info().formats.empty() ? kDefaultFormat : quantizer.info().formats.front());
  }
  // A choice about codes or scales means a format that has them, also where the run casts.
  const bool needs_grid = choice.simple || choice.scaling || choice.block_size;
  return needs_grid && run_format_->grid() == nullptr ? host_.format(kDefaultFormat) : *run_format_;
}

const Quantizer& TargetResolver::quantizer_for(const LayerChoice& choice, const Format& format, const TensorInfo& weight) const {
  if (choice.simple) return plain_quantizer(format);
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, format))
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", quantizer.info().name, format.info().name));
    return quantizer;
  }
  // "auto" decides layer by layer: without a Hessian of its own, a layer gains nothing from the calibrated quantizer.
  if (same_name(options_.quantizer, kAuto) && (calibration_ == nullptr || !calibration_->informs(weight))) return plain_quantizer(format);
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

StorageWish TargetResolver::wish_for(const LayerChoice& choice, const Format& format) const {
  StorageWish wish{storage_for(choice, format), format.info().name};
  // Where a choice equals the default, there is no telling them apart.
  wish.scaling_is_chosen = choice.scaling || choice.block_size || wish.storage.scaling != Scaling::row;
  wish.rotation_is_chosen = options_.storage.rotation.mode != Rotation::Mode::automatic;
  wish.format_is_chosen = choice.format || !same_name(options_.format, kDefaultFormat);
  return wish;
}

const Format& TargetResolver::adapt(StorageWish& wish, const Quantizer& quantizer, const Options& options) const {
  const std::string before = wish.format;
  const QuantizerInfo& info = quantizer.info();
  guard(info.name, "adapt", "", [&] { quantizer.adapt(wish, options); });
  const Format& format = host_.format(wish.format);
  if (wish.format != before && !is_among(info.own_formats, format))
    throw Error(ErrorKind::plugin, fmt::format("plugin '{}' chose format '{}', which is not one of its own", info.name, wish.format),
                "report this to the author of the plugin");
  return format;
}

Options TargetResolver::options_for(const std::map<std::string, OptionValue>& chosen, const Quantizer& quantizer) const {
  const std::string& name = quantizer.info().name;
  Options options = guard(name, "options", "", [&] { return Options(quantizer.info().options); });
  for (const auto& [owner, values] : options_.quantizer_options)
    if (same_name(owner, name))
      for (const auto& [option, value] : values) options.set(name, option, value);
  for (const auto& [option, value] : chosen) options.set(name, option, value);
  return options;
}

ResolvedTarget TargetResolver::resolve(const LayerChoice& choice, const TensorInfo& weight) const {
  const Format& wished = format_for(choice);
  const Quantizer& quantizer = quantizer_for(choice, wished, weight);
  const Options options = options_for(choice.options, quantizer);
  StorageWish wish = wish_for(choice, wished);
  const Format& format = adapt(wish, quantizer, options);
  const StorageOptions& storage = wish.storage;
  if (const std::optional<Substitute> substitute = format.substitute(weight, storage))
    return resolve_substitute(*substitute, choice, quantizer, storage, weight);
  return {&quantizer, {&format, format.layout(weight, storage), options}, storage.scaling};
}

ResolvedTarget TargetResolver::resolve_substitute(const Substitute& substitute, const LayerChoice& choice, const Quantizer& chosen,
                                                  const StorageOptions& storage, const TensorInfo& weight) const {
  const Format& format = host_.format(substitute.format);
  Layout layout = format.layout(weight, storage);
  layout.note = layout.note.empty() ? substitute.reason : fmt::format("{}; {}", substitute.reason, layout.note);
  if (writes(chosen, format)) return {&chosen, {&format, layout, options_for(choice.options, chosen)}, storage.scaling};
  // The options of the choice are those of the quantizer that cannot be used.
  const Quantizer& plain = plain_quantizer(format);
  return {&plain, {&format, layout, options_for({}, plain)}, storage.scaling};
}

}  // namespace qmill
