// By how much a file wants its changes scaled.
#pragma once

#include "lora/lora_file.h"

namespace qmill {

class Regex;

enum class AlphaSource { none, tensor, metadata, rank };  // none: there is nothing to scale

struct LoraAlpha {
  double alpha = 1;  // the change is scaled by alpha / rank
  double rank = 1;
  AlphaSource source = AlphaSource::none;

  double scale() const { return alpha / rank; }
};

// Of each entry, the first there is of: its tensor `.alpha`; the file's metadata `<name with underscores for dots>_alpha`; PEFT's
// configuration, in the metadata (`lora_adapter_metadata`) or beside a file named adapter_model.safetensors (adapter_config.json), with
// its alpha_pattern and use_rslora; the rank, so that nothing is scaled.
class LoraAlphas {
 public:
  // Throws Error(input) that names the file for metadata that cannot be read, Error(unsupported) for a configuration of weights that are
  // stored the other way round (fan_in_fan_out). `file` must outlive this.
  explicit LoraAlphas(const LoraFile& file);
  ~LoraAlphas();

  // Throws Error(input) that names file and tensor when alpha is not finite.
  LoraAlpha of(const LoraEntry& entry) const;

 private:
  struct Config;  // of one component of the model
  const Config* config_for(const std::string& name) const;
  void read_config(const std::string& text);

  const LoraFile& file_;
  std::map<std::string, Config> configs_;  // by component ("transformer."); "": of all
};

}  // namespace qmill
