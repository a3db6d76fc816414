// From what a rule says to where a layer goes: quantizer, format, layout and options.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

namespace qmill {

class Calibration;

struct ResolvedTarget {
  const Quantizer* quantizer = nullptr;
  LayerTarget target;
  std::optional<Scaling> wanted_scaling = {};  // nothing: left to the format; the layout may have less
};

class TargetResolver {
 public:
  // Finds the run's own quantizer and format. Throws Error(usage, plugin).
  // `calibration`: null if there is none.
  TargetResolver(const Host& host, const TargetOptions& options, const Calibration* calibration = nullptr);

  // What "auto" became; else the quantizer that was asked for.
  const std::string& run_quantizer() const { return run_quantizer_; }
  // Why "auto" became that; empty if it was not asked for.
  const std::string& why() const { return why_; }
  const WritableFormat& run_format() const { return *run_format_; }
  // As the run's quantizer stores a layer of which nothing else is said.
  const WritableFormat& usual_format() const { return *usual_format_; }
  Scaling usual_scaling() const { return usual_scaling_; }

  // `input_scale`: for layouts that store one. Throws Error(usage) for a choice that contradicts itself, Error(unsupported) for a shape that
  // cannot be stored.
  ResolvedTarget resolve(const LayerChoice& choice, const TensorInfo& weight, float input_scale = 1) const;

 private:
  const WritableFormat& format_for(const LayerChoice& choice) const;
  const Quantizer& quantizer_for(const LayerChoice& choice, const WritableFormat& format, const TensorInfo& weight) const;
  // What "auto" is in this run; sets why().
  std::string automatic();
  StorageOptions storage_for(const LayerChoice& choice, const WritableFormat& format) const;
  StorageWish wish_for(const LayerChoice& choice, const WritableFormat& format) const;
  // What the quantizer makes of the wish; returns its format.
  const WritableFormat& adapt(StorageWish& wish, const Quantizer& quantizer, const Options& options) const;
  Options options_for(const std::map<std::string, OptionValue>& chosen, const Quantizer& quantizer) const;
  // Why readers would take the model for another one if this weight were stored so; empty: they would not, or no other format is named.
  static std::string misread(const LayerTarget& target, const TensorInfo& weight);
  // Where a weight goes that `misfit` must not store, for that reason: the format that it names, by the chosen quantizer if that writes it.
  ResolvedTarget resolve_substitute(const WritableFormat& misfit, const std::string& reason, const LayerChoice& choice,
                                    const Quantizer& chosen, const StorageOptions& storage, const TensorInfo& weight) const;

  const Host& host_;
  const TargetOptions& options_;
  const Calibration* calibration_;
  std::string why_;
  std::string run_quantizer_;
  const WritableFormat* run_format_;
  std::optional<Scaling> run_scaling_;
  const WritableFormat* usual_format_;
  Scaling usual_scaling_;
};

}  // namespace qmill
