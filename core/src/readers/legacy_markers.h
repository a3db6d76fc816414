// Older files of scaled float8: a tensor "scaled_fp8" marks all layers below its prefix that have a ".scale_weight".
// Source: ComfyUI, utils.py (convert_old_quants) and sd.py.
#pragma once

#include <qmill/tensor_info.h>

#include <string>
#include <string_view>
#include <vector>

namespace qmill {

inline constexpr std::string_view kLegacyScale = ".scale_weight";

class LegacyMarkers {
 public:
  // `model_prefix`: below which the model lies in the file. Where it lies below one, loaders of checkpoints do not look at a marker
  // without a prefix.
  LegacyMarkers(const std::vector<TensorInfo>& tensors, std::string_view model_prefix);

  // Whether readers take this layer, which has such a scale, for a quantized one.
  bool marks(std::string_view base) const;

  // Whether there is a marker without a prefix that loaders of checkpoints do not look at. ComfyUI's loader of diffusion models does,
  // for the whole file.
  bool is_outside() const { return is_outside_; }

 private:
  std::vector<std::string> prefixes_;
  bool is_outside_ = false;
};

}  // namespace qmill
