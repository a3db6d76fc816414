#include "model/name_index.h"

#include <algorithm>
#include <array>
#include <string>

namespace qmill {
namespace {

// Of diffusion models in checkpoints. ComfyUI takes the one with the most tensors if there are more than five.
constexpr std::array<std::string_view, 3> kCheckpointPrefixes = {"model.diffusion_model.", "model.model.", "net."};
constexpr std::ptrdiff_t kFewTensors = 5;

std::ptrdiff_t count(const std::vector<TensorInfo>& tensors, std::string_view prefix) {
  return std::count_if(tensors.begin(), tensors.end(), [&](const TensorInfo& tensor) { return tensor.name.starts_with(prefix); });
}

}  // namespace

std::vector<std::string_view> model_prefixes(const std::vector<TensorInfo>& tensors) {
  std::vector<std::string_view> prefixes;
  std::ptrdiff_t most = kFewTensors;
  for (const std::string_view prefix : kCheckpointPrefixes) {
    const std::ptrdiff_t tensors_below = count(tensors, prefix);
    if (tensors_below <= most) continue;
    most = tensors_below;
    prefixes = {prefix};
  }
  prefixes.emplace_back("");
  for (const std::string_view prefix : name_prefixes())
    if (count(tensors, prefix) != 0 && std::find(prefixes.begin(), prefixes.end(), prefix) == prefixes.end()) prefixes.push_back(prefix);
  return prefixes;
}

NameIndex::NameIndex(const std::vector<TensorInfo>& tensors, std::string_view prefix) {
  names_.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    std::string_view name = tensor.name;
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    names_.emplace_back(name, &tensor);
  }
  std::sort(names_.begin(), names_.end());
}

bool NameIndex::has(std::string_view key) const {
  if (find(key) != nullptr) return true;
  // What lies below a key is not beside the key itself: '-' sorts before '.'.
  const std::string below = std::string(key) + ".";
  const auto first =
      std::lower_bound(names_.begin(), names_.end(), below, [](const auto& entry, const std::string& k) { return entry.first < k; });
  return first != names_.end() && first->first.starts_with(below);
}

bool NameIndex::fits(const Fingerprint& fingerprint) const {
  const auto is_here = [&](const std::string& key) { return has(key); };
  const auto holds = [&](const TensorDimension& dimension) {
    const TensorInfo* tensor = find(dimension.tensor);
    return tensor != nullptr && dimension.axis < tensor->shape.size() && tensor->shape[dimension.axis] == dimension.equals;
  };
  return !fingerprint.all.empty() && std::all_of(fingerprint.all.begin(), fingerprint.all.end(), is_here) &&
         std::none_of(fingerprint.none.begin(), fingerprint.none.end(), is_here) &&
         std::all_of(fingerprint.dimensions.begin(), fingerprint.dimensions.end(), holds);
}

const TensorInfo* NameIndex::find(std::string_view name) const {
  const auto found =
      std::lower_bound(names_.begin(), names_.end(), name, [](const auto& entry, std::string_view k) { return entry.first < k; });
  return found != names_.end() && found->first == name ? found->second : nullptr;
}

}  // namespace qmill
