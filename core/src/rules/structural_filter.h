// What to keep of a model that nobody described: by words in names, and by where in the model a layer is.
#pragma once

#include <qmill/model_filter.h>

#include <vector>

namespace qmill {

// Keeps embeddings, modulation, norms, and layers outside the repeated blocks: the first and the last ones. A block is a number in a name
// with a name after it: "blocks.3.attn.q.weight", but not "time_embed.2.weight". In a model without blocks, words alone decide.
class StructuralFilter final : public ModelFilter {
 public:
  explicit StructuralFilter(const std::vector<TensorInfo>& tensors);

  const FilterInfo& info() const override { return info_; }
  FilterVerdict classify(const TensorInfo& tensor) const override;
  std::span<const Fingerprint> fingerprints() const override { return {}; }

 private:
  FilterInfo info_;
  bool has_blocks_ = false;
};

}  // namespace qmill
