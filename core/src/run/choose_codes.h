// The step of a layer in which its quantizer works: from values to stored tensors.
#pragma once

#include "engine/resources.h"

#include <qmill/core/plan.h>

namespace qmill {

struct ChosenLayer {
  StoredLayer stored;  // as planned
  std::vector<std::string> notes;
  double seconds = 0;
};

// Throws Error(plugin) when a quantizer returned something else than its plan said.
void require_as_planned(const std::vector<TensorInfo>& planned, const StoredLayer& stored);

// `calibration`: null, or what is known of the layer's inputs. Throws Error that names plugin and tensor; Error(plugin) when the result is not
// what the plan said.
ChosenLayer choose_codes(const Decision& decision, const at::Tensor& weight, const LayerCalibration* calibration, std::int64_t seed,
                         const RunResources& resources);

}  // namespace qmill
