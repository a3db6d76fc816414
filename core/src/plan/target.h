// From what a rule says to where a layer goes: quantizer, format, layout and options.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

namespace qmill {

class Calibration;

struct ResolvedTarget {
  const Quantizer* quantizer = nullptr;
  LayerTarget target;
  Scaling wanted_scaling = Scaling::row;  // the layout may have less
};

// Whether `auto` might choose it for some layer.
bool may_be_automatic(const Host& host, const Quantizer& quantizer);

class TargetResolver {
 public:
  // Finds the run's own quantizer and format. Throws Error(usage, plugin).
  // `calibration`: null if there is none.
  TargetResolver(const Host& host, const TargetOptions& options, const Calibration* calibration = nullptr);

  // What "auto" became; else the quantizer that was asked for.
  const std::string& run_quantizer() const { return run_quantizer_; }
  // Why "auto" became that; empty if it was not asked for.
  const std::string& why() const { return why_; }
  const Format& run_format() const { return *run_format_; }
  // As the run's quantizer stores a layer of which nothing else is said.
  const Format& usual_format() const { return *usual_format_; }
  Scaling usual_scaling() const { return usual_scaling_; }

  // Throws Error(usage) for a choice that contradicts itself, Error(unsupported) for a shape that cannot be stored.
  ResolvedTarget resolve(const LayerChoice& choice, const TensorInfo& weight) const;

 private:
  const Format& format_for(const LayerChoice& choice) const;
  const Quantizer& quantizer_for(const LayerChoice& choice, const Format& format, const TensorInfo& weight) const;
  // What "auto" is in this run; sets why().
  std::string automatic();
  // Plain rounding, or for a format without a grid the first quantizer that writes it.
  const Quantizer& plain_quantizer(const Format& format) const;
  StorageOptions storage_for(const LayerChoice& choice, const Format& format) const;
  StorageWish wish_for(const LayerChoice& choice, const Format& format) const;
  // What the quantizer makes of the wish; returns its format.
  const Format& adapt(StorageWish& wish, const Quantizer& quantizer, const Options& options) const;
  Options options_for(const std::map<std::string, OptionValue>& chosen, const Quantizer& quantizer) const;
  // Where the chosen format cannot take a weight: the format that it names, by the chosen quantizer if that writes it.
  ResolvedTarget resolve_substitute(const Substitute& substitute, const LayerChoice& choice, const Quantizer& chosen,
                                    const StorageOptions& storage, const TensorInfo& weight) const;

  const Host& host_;
  const TargetOptions& options_;
  const Calibration* calibration_;
  std::string why_;
  std::string run_quantizer_;
  const Format* run_format_;
  Scaling run_scaling_;
  const Format* usual_format_;
  Scaling usual_scaling_;
};

}  // namespace qmill
