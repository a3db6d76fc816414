#include "lora/model_layers.h"

#include "lora/change_shape.h"

#include <qmill/names.h>

namespace qmill {
namespace {

constexpr std::string_view kBias = ".bias";

// Fused attention of PyTorch has its weight and bias in one word with the layer.
constexpr std::string_view kFusedWeight = ".in_proj_weight";
constexpr std::string_view kFusedBias = ".in_proj_bias";

std::string without(std::string_view name, std::string_view ending) { return std::string(name.substr(0, name.size() - ending.size())); }

// open_clip stores this matrix transposed, without ".weight": a LoRA's change would be added the wrong way round, and square as it is
// nothing would tell.
constexpr std::string_view kTransposed = "text_projection";

enum class Role { weight, bias, parameter, unknown };

// The layer of a tensor, and what it is there.
std::pair<std::string, Role> role_of(const std::string& name) {
  if (std::string base = layer_base(name); base != name) return {std::move(base), Role::weight};
  if (name.ends_with(kBias) && name.size() > kBias.size()) return {without(name, kBias), Role::bias};
  if (name.ends_with(kFusedWeight)) return {without(name, "_weight"), Role::weight};
  if (name.ends_with(kFusedBias)) return {without(name, "_bias"), Role::bias};
  if (name == kTransposed || name.ends_with("." + std::string(kTransposed))) return {name, Role::unknown};
  return {name, Role::parameter};
}

}  // namespace

std::vector<ModelLayer> model_layers(const TensorSource& model) {
  std::vector<ModelLayer> layers;
  std::map<std::string, std::size_t> by_base;
  const auto layer = [&](const std::string& base) -> ModelLayer& {
    const auto [found, is_new] = by_base.emplace(base, layers.size());
    if (is_new) layers.push_back({base, {}, {}});
    return layers[found->second];
  };
  const std::vector<TensorInfo>& tensors = model.tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto [base, role] = role_of(tensors[i].name);
    if (role == Role::weight) layer(base).weight = i;
    if (role == Role::bias) layer(base).bias = i;
  }
  // Parameters that are no ".weight" are layers of their own, unless there is one.
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto [base, role] = role_of(tensors[i].name);
    if (role != Role::parameter) continue;
    if (ModelLayer& own = layer(base); !own.weight) own.weight = i;
  }
  return layers;
}

std::vector<NamedLayer> named_layers(const TensorSource& model, const std::vector<ModelLayer>& layers) {
  std::vector<NamedLayer> named;
  for (const ModelLayer& layer : layers) {
    NamedLayer& each = named.emplace_back(NamedLayer{layer.base, 0, 0});
    if (const std::optional<std::size_t> sized = layer.weight ? layer.weight : layer.bias) {
      each.rows = rows_of(model.tensors()[*sized].shape);
      each.columns = columns_of(model.tensors()[*sized].shape);
    }
  }
  return named;
}

}  // namespace qmill
