#include "run/choose_codes.h"

#include "engine/shared_values.h"
#include "host/guard.h"
#include "host/resource_context.h"

#include <qmill/names.h>

#include <chrono>

namespace qmill {
namespace {

class RunContext final : public ResourceContext {
 public:
  RunContext(const Decision& decision, const LayerCalibration* calibration, std::int64_t seed, const RunResources& resources)
      : ResourceContext(decision.values, decision.target, resources),
        calibration_(calibration),
        seed_(seed_for(static_cast<std::uint64_t>(seed), decision.source.name)) {}

  const LayerCalibration* calibration() const override { return calibration_; }
  std::uint64_t seed() const override { return seed_; }
  std::shared_ptr<const void> shared(const std::string& key, const std::function<std::shared_ptr<const void>()>& make) override {
    return resources().shared != nullptr ? resources().shared->get(key, make, resources().tasks) : make();
  }
  void note(std::string text) override { notes_.push_back(std::move(text)); }

  std::vector<std::string> take_notes() { return std::move(notes_); }

 private:
  const LayerCalibration* calibration_;
  const std::uint64_t seed_;
  std::vector<std::string> notes_;
};

}  // namespace

void require_as_planned(const std::vector<TensorInfo>& planned, const StoredLayer& stored) {
  const auto text = [](const TensorInfo& info) { return fmt::format("'{}' {} {}", info.name, dtype_name(info.dtype), info.shape_text()); };
  const auto reject = [&](const std::string& found, const std::string& expected) {
    throw Error(ErrorKind::plugin, fmt::format("it returned {}, its plan said {}", found, expected),
                "report this to the author of the plugin");
  };
  if (stored.tensors.size() != planned.size()) reject(fmt::format("{} tensors", stored.tensors.size()), fmt::format("{}", planned.size()));
  for (std::size_t i = 0; i < planned.size(); ++i) {
    const StoredTensor& tensor = stored.tensors[i];
    if (!tensor.data.defined() || !tensor.data.is_contiguous() || !tensor.data.device().is_cpu())
      reject(fmt::format("'{}' not contiguous on the CPU", tensor.name), text(planned[i]));
    if (const TensorInfo info = info_of(tensor); info != planned[i]) reject(text(info), text(planned[i]));
  }
}

ChosenLayer choose_codes(const Decision& decision, const at::Tensor& weight, const LayerCalibration* calibration, std::int64_t seed,
                         const RunResources& resources) {
  const auto start = std::chrono::steady_clock::now();
  RunContext context(decision, calibration, seed, resources);
  ChosenLayer chosen;
  chosen.stored = guard(decision.quantizer->info().name, "quantize", decision.source.name, [&] {
    StoredLayer stored = decision.quantizer->quantize(weight, context);
    require_as_planned(decision.outputs, stored);
    return stored;
  });
  chosen.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  chosen.notes = context.take_notes();
  return chosen;
}

}  // namespace qmill
