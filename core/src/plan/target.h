// From what a rule says to where a layer goes: quantizer, format, layout and options.
#pragma once

#include <qmill/core/convert_options.h>
#include <qmill/core/host.h>

namespace qmill {

struct ResolvedTarget {
  const Quantizer* quantizer = nullptr;
  LayerTarget target;
  Scaling wanted_scaling = Scaling::row;  // the layout may have less
};

class TargetResolver {
 public:
  // Finds the run's own quantizer and format. Throws Error(usage, plugin).
  TargetResolver(const Host& host, const ConvertOptions& options);

  // What "auto" became; else the quantizer that was asked for.
  const std::string& run_quantizer() const { return run_quantizer_; }
  const Format& run_format() const { return *run_format_; }
  Scaling run_scaling() const { return run_scaling_; }

  // Throws Error(usage) for a choice that contradicts itself, Error(unsupported) for a shape that cannot be stored.
  ResolvedTarget resolve(const LayerChoice& choice, const TensorInfo& weight) const;

 private:
  const Format& format_for(const LayerChoice& choice) const;
  const Quantizer& quantizer_for(const LayerChoice& choice, const Format& format) const;
  // Plain rounding, or for a format without a grid the first quantizer that writes it.
  const Quantizer& plain_quantizer(const Format& format) const;
  StorageOptions storage_for(const LayerChoice& choice, const Format& format) const;
  Options options_for(const LayerChoice& choice, const Quantizer& quantizer) const;

  const Host& host_;
  const ConvertOptions& options_;
  std::string run_quantizer_;
  const Format* run_format_;
  Scaling run_scaling_;
};

}  // namespace qmill
