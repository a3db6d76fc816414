// The tensor names of a model, sorted, without the prefix that a checkpoint puts before them.
#pragma once

#include <qmill/fingerprint.h>
#include <qmill/tensor_info.h>

#include <string_view>
#include <utility>
#include <vector>

namespace qmill {

// Prefixes under which the model may lie, in the order in which readers look; the empty one is always among them.
std::vector<std::string_view> model_prefixes(const std::vector<TensorInfo>& tensors);

class NameIndex {
 public:
  // Names that do not begin with `prefix` stay as they are. `tensors` must outlive the index.
  NameIndex(const std::vector<TensorInfo>& tensors, std::string_view prefix);

  // Whether there is a tensor of this name, or one below it: "img_in" for "img_in.weight".
  bool has(std::string_view key) const;

  bool fits(const Fingerprint& fingerprint) const;

 private:
  const TensorInfo* find(std::string_view name) const;

  std::vector<std::pair<std::string_view, const TensorInfo*>> names_;
};

}  // namespace qmill
