// A LoRA file: low-rank changes B A to the weights of a model.
#pragma once

#include "layer_names.h"

#include <qmill/core/host.h>
#include <qmill/tensor.h>

#include <memory>

namespace qmill {

// One pair of matrices, as tensors of the file.
struct LoraPair {
  std::string name;                  // of the layer, as the file has it
  std::size_t layer = 0;             // number in LayerNames::bases()
  std::size_t down = 0;              // A [rank, ...]
  std::size_t up = 0;                // B [..., rank]
  std::optional<std::size_t> alpha;  // a scalar; absent: the rank
};

// Spellings: PEFT and diffusers (LAYER.lora_A.weight, .lora_A.default.weight, .lora.down.weight), LAYER.lora_down.weight, kohya
// (lora_unet_LAYER.lora_down.weight with underscores for dots); with and without the prefixes of either side.
class LoraFile {
 public:
  // Reads headers only. Throws Error(input) that names the file: unreadable, a pair without its other half, two pairs for one layer, a name
  // that could be several layers.
  LoraFile(const Host& host, const std::filesystem::path& path, const LayerNames& layers);

  const std::filesystem::path& path() const { return path_; }
  const TensorSource& source() const { return *source_; }
  const std::vector<LoraPair>& pairs() const { return pairs_; }             // that touch the model
  const std::vector<std::string>& unmatched() const { return unmatched_; }  // tensors of other layers, or of no known kind
  std::optional<std::size_t> pair_of(std::size_t layer) const;              // number in pairs()

  // F32, in the shape of the file. Throws Error(input) for values that are not finite.
  at::Tensor matrix(std::size_t tensor) const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<TensorSource> source_;
  std::vector<LoraPair> pairs_;
  std::map<std::size_t, std::size_t> by_layer_;
  std::vector<std::string> unmatched_;
};

}  // namespace qmill
