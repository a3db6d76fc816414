// The context of a layer that works with the run's threads and memory and knows of no inputs.
#pragma once

#include "engine/resources.h"

#include <qmill/error.h>
#include <qmill/layer_context.h>

namespace qmill {

class ResourceContext : public LayerContext {
 public:
  // Borrows everything.
  ResourceContext(const TensorInfo& weight, const LayerTarget& target, const RunResources& resources)
      : weight_(weight), target_(target), resources_(resources) {}

  const TensorInfo& weight() const override { return weight_; }
  const LayerTarget& target() const override { return target_; }
  const LayerCalibration* calibration() const override { return nullptr; }
  std::uint64_t seed() const override { return 0; }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override { return resources_.buffers.allocate(shape, dtype); }
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) override { resources_.tasks.parallel(tasks, body); }
  std::shared_ptr<const void> shared(const std::string&, const std::function<std::shared_ptr<const void>()>& make) override {
    return make();
  }
  std::int64_t step_limit(Step step) const override {
    const StreamingThresholds& limits = resources_.thresholds;
    const std::optional<std::int64_t>& limit = step == Step::hadamard  ? limits.hadamard
                                               : step == Step::hessian ? limits.hessian
                                                                       : limits.ldlq;
    return limit ? *limit : LayerContext::step_limit(step);
  }
  void note(std::string) override {}
  void check_cancelled() const override {
    if (resources_.cancel != nullptr && *resources_.cancel) throw Error(ErrorKind::cancelled, "interrupted");
  }

 protected:
  const RunResources& resources() const { return resources_; }

 private:
  const TensorInfo& weight_;
  const LayerTarget& target_;
  const RunResources& resources_;
};

}  // namespace qmill
