// A LayerContext for tests of quantizers and numerics without a host.
#pragma once

#include <qmill/error.h>
#include <qmill/layer_context.h>

#include <ATen/ops/empty.h>

#include <map>
#include <string>
#include <vector>

namespace qmill::testing {

class TestContext : public LayerContext {
 public:
  TestContext(TensorInfo weight, LayerTarget target) : weight_(std::move(weight)), target_(std::move(target)) {}

  const TensorInfo& weight() const override { return weight_; }
  const LayerTarget& target() const override { return target_; }
  const LayerCalibration* calibration() const override { return calibrated; }
  std::uint64_t seed() const override { return 1; }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override {
    return at::empty(at::IntArrayRef(shape.data(), shape.size()), at::TensorOptions().dtype(scalar_type(dtype)));
  }
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) override {
    for (std::int64_t task = tasks; task-- > 0;) body(task);  // backwards: nothing may depend on the order
  }
  std::shared_ptr<const void> shared(const std::string& key, const std::function<std::shared_ptr<const void>()>& make) override {
    std::shared_ptr<const void>& value = kept_[key];
    if (!value) value = make();
    return value;
  }
  void note(std::string text) override { notes.push_back(std::move(text)); }
  void check_cancelled() const override {
    if (cancelled) throw Error(ErrorKind::cancelled, "interrupted");
  }

  std::vector<std::string> notes;
  bool cancelled = false;
  const LayerCalibration* calibrated = nullptr;

 private:
  TensorInfo weight_;
  LayerTarget target_;
  std::map<std::string, std::shared_ptr<const void>> kept_;
};

}  // namespace qmill::testing
