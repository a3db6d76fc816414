// By how much a file wants its changes scaled.
#pragma once

#include "lora/flat_alpha.h"
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
// configuration, in the metadata (`lora_adapter_metadata`) or beside a file named adapter_model (adapter_config.json), with its
// alpha_pattern and use_rslora; a key of the metadata such as `lora_alpha`; the rank, so that nothing is scaled.
class LoraAlphas {
 public:
  // Throws Error(input) that names the file for metadata that cannot be read, Error(unsupported) for a configuration of weights that are
  // stored the other way round (fan_in_fan_out). `file` must outlive this.
  explicit LoraAlphas(const LoraFile& file);
  ~LoraAlphas();

  // Throws Error(input) that names the file and the tensor or the key when alpha is no plausible number.
  LoraAlpha of(const LoraEntry& entry) const;

 private:
  struct Config;  // of one component of the model
  const Config* config_for(const LoraEntry& entry) const;
  void set_flat(const LoraEntry& entry, LoraAlpha& result) const;
  void read_config(const std::string& text);

  const LoraFile& file_;
  FlatAlphas flat_;
  std::map<std::string, Config> configs_;  // by component ("transformer."); "": of all
};

}  // namespace qmill
