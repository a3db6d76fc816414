// A LoRA file: small matrices from which changes to the weights of a model are made.
#pragma once

#include "lora/adapter_part.h"
#include "lora/layer_names.h"

#include <qmill/error.h>
#include <qmill/loader.h>
#include <qmill/tensor.h>

#include <memory>

namespace qmill {

// How the change of a weight is stored.
enum class LoraKind {
  none,        // the bias alone changes
  low_rank,    // B A: LoRA
  hadamard,    // LoHa
  kronecker,   // LoKr
  difference,  // as it is
};

// What one file says of one layer.
struct LoraEntry {
  std::string name;       // of the layer, as the file has it
  std::size_t layer = 0;  // number in LayerNames::bases()
  LoraKind kind = LoraKind::none;
  std::map<AdapterPart, std::size_t> parts;  // numbers of tensors of the file

  bool has(AdapterPart part) const { return parts.contains(part); }
};

// Spellings: PEFT and diffusers (LAYER.lora_A.weight, .lora_A.default.weight, .lora.down.weight), LAYER.lora_down.weight, kohya and LyCORIS
// (lora_unet_LAYER.lora_down.weight with underscores for dots); with and without the prefixes of either side.
class LoraFile {
 public:
  // `source` is the open file. Reads headers only. Throws Error(input) that names the file: a part without its partner, shapes that do not
  // fit each other, two entries for one layer, a name that could be several layers; Error(unsupported) for an adapter of another kind.
  LoraFile(const std::filesystem::path& path, std::unique_ptr<TensorSource> source, const LayerNames& layers);

  const std::filesystem::path& path() const { return path_; }
  const TensorSource& source() const { return *source_; }
  const TensorInfo& info(std::size_t tensor) const { return source_->tensors()[tensor]; }
  const TensorInfo& info(const LoraEntry& entry, AdapterPart part) const { return info(entry.parts.at(part)); }
  const std::vector<LoraEntry>& entries() const { return entries_; }        // that are of layers, by name
  const std::vector<std::string>& unmatched() const { return unmatched_; }  // tensors of other layers, or of no known kind

  // F32, in the shape of the file. Throws Error(input) for values that are not finite.
  at::Tensor matrix(std::size_t tensor) const;
  at::Tensor matrix(const LoraEntry& entry, AdapterPart part) const { return matrix(entry.parts.at(part)); }

  // The error with the file's name.
  Error located(Error error) const;

 private:
  void check(const LoraEntry& entry) const;

  std::filesystem::path path_;
  std::unique_ptr<TensorSource> source_;
  std::vector<LoraEntry> entries_;
  std::vector<std::string> unmatched_;
};

}  // namespace qmill
