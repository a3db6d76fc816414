// Returns other tensors than its plan says.
#include "quiet_rounding.h"

class LiesInPlan final : public bad::QuietRounding {
 public:
  LiesInPlan() : QuietRounding({"bad.lies-in-plan", {}, "", {}, {}, false}) {}

  std::vector<qmill::TensorInfo> plan(const qmill::TensorInfo& weight, const qmill::LayerTarget& target) const override {
    std::vector<qmill::TensorInfo> outputs = target.format->outputs(weight, target.layout);
    outputs[0].dtype = qmill::DType::f32;
    return outputs;
  }
};

QMILL_PLUGIN("lies_in_plan", "1.0", QMILL_QUANTIZER("bad.lies-in-plan", LiesInPlan));
