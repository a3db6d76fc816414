// A LoRA file: small matrices from which changes to the weights of a model are made.
#pragma once

#include "lora/adapter_part.h"
#include "lora/layer_names.h"

#include <qmill/error.h>
#include <qmill/loader.h>
#include <qmill/tensor.h>

#include <memory>
#include <set>

namespace qmill {

// How the change of a weight is stored.
enum class LoraKind {
  none,        // the bias alone changes
  low_rank,    // B A: LoRA
  hadamard,    // LoHa
  kronecker,   // LoKr
  difference,  // as it is
};

// What one file says of one layer, or of a part of its rows.
struct LoraEntry {
  std::string name;     // of the layer, as the file has it
  Component component;  // that the name states
  LayerPlace place;
  LoraKind kind = LoraKind::none;
  std::map<AdapterPart, std::size_t> parts;  // numbers of tensors of the file

  bool has(AdapterPart part) const { return parts.contains(part); }
};

// Spellings: PEFT and diffusers (LAYER.lora_A.weight, .lora_A.default.weight, .lora.down.weight), LAYER.lora_down.weight, kohya and LyCORIS
// (lora_unet_LAYER.lora_down.weight with underscores for dots); with and without the prefixes of either side.
class LoraFile {
 public:
  // `source` is the open file. Reads headers only. Throws Error(input) that names the file: a part without its partner, shapes that do not
  // fit each other, two entries for the same rows of a layer, a name that could be several layers; Error(unsupported) for an adapter of
  // another kind.
  LoraFile(const std::filesystem::path& path, std::unique_ptr<TensorSource> source, const LayerNames& layers);

  const std::filesystem::path& path() const { return path_; }
  const TensorSource& source() const { return *source_; }
  const TensorInfo& info(std::size_t tensor) const { return source_->tensors()[tensor]; }
  const TensorInfo& info(const LoraEntry& entry, AdapterPart part) const { return info(entry.parts.at(part)); }
  const std::vector<LoraEntry>& entries() const { return entries_; }  // that are of layers, by name
  // Tensors that change nothing of the model: of other layers, or of no known kind.
  const std::vector<std::string>& unmatched() const { return unmatched_; }
  // Those of them whose absence is felt: all but an alpha alone, a single value, and trained embeddings.
  const std::vector<std::string>& lost() const { return lost_; }
  // Tensors that are meant for another model, by their names, and which models these are.
  const std::vector<std::string>& for_other_models() const { return for_other_models_; }
  const std::set<std::string>& other_models() const { return other_models_; }

  // F32, in the shape of the file. Throws Error(input) for values that are not finite.
  at::Tensor matrix(std::size_t tensor) const;
  at::Tensor matrix(const LoraEntry& entry, AdapterPart part) const { return matrix(entry.parts.at(part)); }

  // The error with the file's name.
  Error located(Error error) const;

 private:
  using Entries = std::map<std::string, LoraEntry>;  // by name

  Entries collect_parts(const LayerNames& layers);
  void place_all(Entries& by_name, const LayerNames& layers);
  void place_unknown_tensor(const TensorInfo& tensor, const LayerNames& layers);
  void drop_other_text_encoders(const LayerNames& layers);
  void refuse_overlaps(const LayerNames& layers) const;
  void check(const LoraEntry& entry) const;
  void add_to(std::vector<std::string>& names, const LoraEntry& entry) const;
  void set_aside(const LoraEntry& entry);  // as meant for another model

  std::filesystem::path path_;
  std::unique_ptr<TensorSource> source_;
  std::vector<LoraEntry> entries_;
  std::vector<std::string> unmatched_, lost_, for_other_models_;
  std::set<std::string> other_models_;
};

}  // namespace qmill
