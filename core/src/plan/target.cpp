#include "plan/target.h"

#include "calibration/calibration.h"
#include "host/guard.h"
#include "plan/automatic.h"
#include "readers/detection_layers.h"

#include <qmill/core/scaling.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kAuto = "auto";

// The one default of all; a person who asks for it by name cannot be told from one who does not.
const std::string& default_format() {
  static const std::string name = TargetOptions().format;
  return name;
}

std::string noted(const std::string& reason, const std::string& note) {
  return note.empty() ? reason : fmt::format("{}; {}", reason, note);
}

}  // namespace

TargetResolver::TargetResolver(const Host& host, const TargetOptions& options, const Calibration* calibration)
    : host_(host),
      options_(options),
      calibration_(calibration),
      run_quantizer_(options.quantizer),
      run_format_(&host.format(options.format)) {
  if (same_name(run_quantizer_, kAuto)) run_quantizer_ = automatic();
  const Quantizer& quantizer = host.quantizer(run_quantizer_);
  run_quantizer_ = quantizer.info().name;
  if (!writes(quantizer, *run_format_)) {
    // A quantizer of one format only brings it along, unless another was asked for.
    if (!same_name(options.format, default_format()) || quantizer.info().formats.empty())
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", run_quantizer_, options.format));
    run_format_ = &host.format(quantizer.info().formats.front());
  }
  run_scaling_ = agreed_scaling(*run_format_, options.format, std::nullopt, std::nullopt, options.storage.scaling);
  StorageWish wish = wish_for({}, *run_format_);
  usual_format_ = &adapt(wish, quantizer, options_for({}, quantizer));
  usual_scaling_ = wish.storage.scaling.value_or(default_scaling(*usual_format_));
}

std::string TargetResolver::automatic() {
  const std::string plain = plain_quantizer(host_, *run_format_).info().name;
  if (as_coded(*run_format_) == nullptr) {
    why_ = run_format_->info().takes_any_shape ? fmt::format("format '{}' has nothing to choose", run_format_->info().name)
                                               : fmt::format("it writes format '{}'", run_format_->info().name);
    return plain;
  }
  // Without real inputs nothing better than plain rounding is known (docs/decisions).
  if (calibration_ == nullptr || calibration_->account().informed() == 0) {
    why_ = "there is no calibration data";
    return plain;
  }
  const std::vector<const Quantizer*> calibrated = calibrated_quantizers(host_);
  const auto found =
      std::find_if(calibrated.begin(), calibrated.end(), [&](const Quantizer* quantizer) { return writes(*quantizer, *run_format_); });
  std::string refused;  // of which it is not known what it offers
  for (const PluginCandidate& candidate : host_.candidates())
    if (refused.empty() && candidate.status == PluginCandidate::Status::refused)
      refused = fmt::format("'{}' was refused: {}", candidate.file.string(), candidate.reason);
  if (calibrated.empty()) {
    // Data that were recorded for such a plugin would be of no use, and nobody would notice.
    if (!refused.empty())
      throw Error(ErrorKind::plugin, fmt::format("no quantizer that was found uses calibration data, and {}", refused),
                  "repair that plugin, or ask for plain rounding with `optimizer rtn`");
    why_ = "no plugin that was found uses calibration data";
  } else if (found == calibrated.end()) {
    why_ = fmt::format("quantizer '{}' does not write format '{}'", calibrated.front()->info().name, run_format_->info().name);
  } else {
    const CalibrationAccount& account = calibration_->account();
    why_ = fmt::format("there is calibration data of {} of {} layers", account.informed(), account.layers);
    if (account.informed() < account.layers) why_ += fmt::format("; {} for the others", plain);
    if (!refused.empty()) why_ += fmt::format("; {}", refused);
    return (*found)->info().name;
  }
  return plain;
}

const WritableFormat& TargetResolver::format_for(const LayerChoice& choice) const {
  if (choice.format) return host_.format(*choice.format);
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, *run_format_))
      return host_.format(quantizer.info().formats.empty() ? default_format() : quantizer.info().formats.front());
  }
  // A choice about codes or scales means a format that has them, also where the run casts.
  const bool needs_grid = choice.simple || choice.scaling || choice.block_size;
  return needs_grid && as_coded(*run_format_) == nullptr ? host_.format(default_format()) : *run_format_;
}

const Quantizer& TargetResolver::quantizer_for(const LayerChoice& choice, const WritableFormat& format, const TensorInfo& weight) const {
  if (choice.simple) return plain_quantizer(host_, format);
  if (choice.quantizer && !same_name(*choice.quantizer, kAuto)) {
    const Quantizer& quantizer = host_.quantizer(*choice.quantizer);
    if (!writes(quantizer, format))
      throw Error(ErrorKind::usage, fmt::format("quantizer '{}' does not write format '{}'", quantizer.info().name, format.info().name));
    return quantizer;
  }
  // "auto" decides layer by layer: without a Hessian of its own, a layer gains nothing from the calibrated quantizer.
  if (same_name(options_.quantizer, kAuto) && (calibration_ == nullptr || !calibration_->informs(weight)))
    return plain_quantizer(host_, format);
  const Quantizer& run = host_.quantizer(run_quantizer_);
  return writes(run, format) ? run : plain_quantizer(host_, format);
}

StorageOptions TargetResolver::storage_for(const LayerChoice& choice, const WritableFormat& format) const {
  StorageOptions storage = options_.storage;
  const std::string& name = choice.format ? *choice.format : format.info().name;
  // A format of one scaling has nothing to take over from a run in another one.
  const bool is_its_own = &format != run_format_ && format.scalings(format.info().name).size() == 1;
  if (is_its_own) storage.block_size.reset();
  storage.scaling = agreed_scaling(format, name, choice.scaling, choice.block_size, is_its_own ? std::nullopt : run_scaling_);
  // The run's wish for rotation is a wish for layers that can be rotated, and a layer's own format and scaling may be none of these.
  const Scaling scaling = storage.scaling.value_or(default_scaling(format));
  const Scaling of_the_run = run_scaling_.value_or(default_scaling(*run_format_));
  if (!format.can_rotate(scaling) && run_format_->can_rotate(of_the_run)) storage.rotation = {Rotation::Mode::off};
  if (choice.block_size) storage.block_size = *choice.block_size;
  if (choice.full_precision_matrix_mult) storage.full_precision_matrix_mult = *choice.full_precision_matrix_mult;
  if (choice.rotation) storage.rotation = *choice.rotation;
  return storage;
}

StorageWish TargetResolver::wish_for(const LayerChoice& choice, const WritableFormat& format) const {
  return {storage_for(choice, format), format.info().name, choice.format || !same_name(options_.format, default_format())};
}

const WritableFormat& TargetResolver::adapt(StorageWish& wish, const Quantizer& quantizer, const Options& options) const {
  const std::string before = wish.format;
  const QuantizerInfo& info = quantizer.info();
  guard(info.name, "adapt", "", [&] { quantizer.adapt(wish, options); });
  const WritableFormat& format = host_.format(wish.format);
  const auto is_this = [&](const std::string& name) { return same_name(name, format.info().name); };
  if (wish.format != before && std::none_of(info.own_formats.begin(), info.own_formats.end(), is_this))
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

ResolvedTarget TargetResolver::resolve(const LayerChoice& choice, const TensorInfo& weight, float input_scale) const {
  const WritableFormat& wished = format_for(choice);
  const Quantizer& quantizer = quantizer_for(choice, wished, weight);
  const Options options = options_for(choice.options, quantizer);
  StorageWish wish = wish_for(choice, wished);
  wish.storage.input_scale = input_scale;
  const WritableFormat& format = adapt(wish, quantizer, options);
  const StorageOptions& storage = wish.storage;
  const auto substitute = [&](const std::string& reason) { return resolve_substitute(format, reason, choice, quantizer, storage, weight); };
  if (const std::string reason = format.misfit(weight, storage); !reason.empty()) return substitute(reason);
  LayerTarget target{&format, format.layout(weight, storage), options};
  if (const std::string reason = misread(target, weight); !reason.empty()) return substitute(reason);
  return {&quantizer, std::move(target), storage.scaling};
}

std::string TargetResolver::misread(const LayerTarget& target, const TensorInfo& weight) {
  if (target.format->info().substitute.empty() || weight.shape.size() != 2) return {};
  const DetectionLayer* by_columns = find_detection_layer(weight.name, Side::columns);
  const DetectionLayer* by_rows = find_detection_layer(weight.name, Side::rows);
  if (by_columns == nullptr && by_rows == nullptr) return {};
  const std::vector<TensorInfo> outputs = target.format->outputs(weight, target.layout);
  if (outputs.empty() || outputs.front().shape.size() != 2) return {};
  const std::vector<std::int64_t>& stored = outputs.front().shape;
  if (by_columns != nullptr && stored[1] != weight.shape[1])
    return fmt::format("readers detect the model by its {} columns ({})", weight.shape[1], by_columns->models);
  if (by_rows != nullptr && stored[0] != weight.shape[0])
    return fmt::format("readers detect the model by its {} rows ({})", weight.shape[0], by_rows->models);
  return {};
}

ResolvedTarget TargetResolver::resolve_substitute(const WritableFormat& misfit, const std::string& reason, const LayerChoice& choice,
                                                  const Quantizer& chosen, const StorageOptions& storage, const TensorInfo& weight) const {
  const std::string& name = misfit.info().substitute;
  if (name.empty())
    throw Error(ErrorKind::plugin, fmt::format("format '{}' names no substitute for '{}': {}", misfit.info().name, weight.name, reason),
                "report this to the author of the plugin");
  const WritableFormat& format = host_.format(name);
  StorageOptions for_substitute = storage;
  if (storage.scaling == default_scaling(misfit)) {  // what suits the one says nothing of the other
    for_substitute.scaling.reset();
    for_substitute.block_size.reset();
  }
  if (storage.rotation.must_rotate() && !format.can_rotate(default_scaling(format))) for_substitute.rotation = {Rotation::Mode::off};
  Layout layout = format.layout(weight, for_substitute);
  layout.note = noted(fmt::format("{}: {}", reason, name), layout.note);
  if (writes(chosen, format)) return {&chosen, {&format, layout, options_for(choice.options, chosen)}, storage.scaling};
  // The options of the choice are those of the quantizer that cannot be used.
  const Quantizer& plain = plain_quantizer(host_, format);
  return {&plain, {&format, layout, options_for({}, plain)}, storage.scaling};
}

}  // namespace qmill
