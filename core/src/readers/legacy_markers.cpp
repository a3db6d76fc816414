#include "readers/legacy_markers.h"

#include <algorithm>

namespace qmill {

LegacyMarkers::LegacyMarkers(const std::vector<TensorInfo>& tensors, std::string_view model_prefix) {
  constexpr std::string_view kMarker = "scaled_fp8";
  for (const TensorInfo& tensor : tensors) {
    if (!tensor.name.ends_with(kMarker)) continue;
    std::string prefix = tensor.name.substr(0, tensor.name.size() - kMarker.size());
    is_outside_ = is_outside_ || (prefix.empty() && !model_prefix.empty());
    if (prefix.empty() ? model_prefix.empty() : prefix.ends_with('.')) prefixes_.push_back(std::move(prefix));
  }
}

bool LegacyMarkers::marks(std::string_view base) const {
  return std::any_of(prefixes_.begin(), prefixes_.end(), [&](const std::string& prefix) { return base.starts_with(prefix); });
}

}  // namespace qmill
