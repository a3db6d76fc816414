#include "plan/corrected_biases.h"

#include <qmill/names.h>

#include <fmt/format.h>

namespace qmill {

void plan_corrected_biases(std::vector<Decision>& decisions, const std::function<bool(const TensorInfo& weight)>& knows_mean) {
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < decisions.size(); ++i) index.emplace(decisions[i].source.name, i);
  for (Decision& layer : decisions) {
    const TensorInfo& weight = layer.source;
    if (layer.action != Action::quantize || weight.shape.size() != 2) continue;
    const auto found = index.find(layer_base(weight.name) + ".bias");
    if (found == index.end()) continue;
    Decision& bias = decisions[found->second];
    // Another rule than this one means that somebody asked for the tensor as it is.
    const bool is_ordinary =
        bias.rule == "not_a_layer" && (bias.action == Action::copy || bias.action == Action::cast || bias.action == Action::merge);
    if (!is_ordinary || !is_floating(bias.source.dtype) || bias.source.shape != std::vector{weight.shape[0]} || !knows_mean(weight))
      continue;
    bias.action = Action::correct;
    bias.rule = "bias_correction";
    bias.reason = fmt::format("with {}", weight.name);
    layer.bias = found->second;
  }
}

}  // namespace qmill
