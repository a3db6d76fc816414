#include "layer_run.h"

#include "../calibration/calibration.h"
#include "../plugin_host/guard.h"
#include "../report/output_error.h"
#include "../report/weight_error.h"
#include "bias_correction.h"
#include "resource_context.h"
#include "shared_values.h"

#include <qmill/names.h>

#include <algorithm>
#include <chrono>

namespace qmill {
namespace {

class HostContext final : public ResourceContext {
 public:
  HostContext(const Decision& decision, const at::Tensor& weight, std::int64_t seed, const RunResources& resources)
      : ResourceContext(decision.source, decision.target, resources),
        seed_(seed_for(static_cast<std::uint64_t>(seed), decision.source.name)) {
    if (resources.calibration != nullptr) calibration_ = resources.calibration->for_layer(decision.source, resources, weight);
  }

  const LayerCalibration* calibration() const override { return calibration_.get(); }
  std::uint64_t seed() const override { return seed_; }
  std::shared_ptr<const void> shared(const std::string& key, const std::function<std::shared_ptr<const void>()>& make) override {
    return resources().shared != nullptr ? resources().shared->get(key, make, resources().tasks) : make();
  }
  void note(std::string text) override { notes_.push_back(std::move(text)); }

  std::vector<std::string> take_notes() { return std::move(notes_); }

 private:
  const std::uint64_t seed_;
  std::unique_ptr<LayerCalibration> calibration_;
  std::vector<std::string> notes_;
};

void require_as_planned(const Decision& decision, const StoredLayer& stored) {
  const auto text = [](const TensorInfo& info) { return fmt::format("'{}' {} {}", info.name, dtype_name(info.dtype), info.shape_text()); };
  const auto reject = [&](const std::string& found, const std::string& expected) {
    throw Error(ErrorKind::plugin, fmt::format("it returned {}, its plan said {}", found, expected),
                "report this to the author of the plugin");
  };
  const std::vector<TensorInfo>& planned = decision.outputs;
  if (stored.tensors.size() != planned.size()) reject(fmt::format("{} tensors", stored.tensors.size()), fmt::format("{}", planned.size()));
  for (std::size_t i = 0; i < planned.size(); ++i) {
    const StoredTensor& tensor = stored.tensors[i];
    if (!tensor.data.defined() || !tensor.data.is_contiguous() || !tensor.data.device().is_cpu())
      reject(fmt::format("'{}' not contiguous on the CPU", tensor.name), text(planned[i]));
    if (const TensorInfo info = info_of(tensor); info != planned[i]) reject(text(info), text(planned[i]));
  }
}

// What is known of a layer once its stored tensors are there.
void report(LayerResult& result, const Decision& decision, const at::Tensor& weight, const std::vector<at::Tensor>& stored,
            const at::Tensor& bias, const LayerCalibration* calibration, const RunResources& resources) {
  const auto& [format, layout, options] = decision.target;
  const at::Tensor inputs = calibration != nullptr ? calibration->held_out_rows() : at::Tensor();
  const at::Tensor mean = calibration != nullptr && bias.defined() ? calibration->mean() : at::Tensor();
  std::optional<CorrectedBias> corrected;
  guard(format->info().name, "decode", decision.source.name, [&] {
    const RowDecoder decoded = stored_rows(stored, decision.source, *format, layout);
    result.quality = layer_quality(layer_base(decision.source.name), decision.label, measure_errors(weight, decoded, resources.tasks));
    if (inputs.defined() && inputs.size(0) != 0) {
      LayerOutput output(decision.source, weight, decoded, *format, layout, is_plain_rounding(*decision.quantizer), resources);
      output.add(inputs);
      output.report(result.quality);
    }
    if (mean.defined()) corrected = correct_bias(bias, weight, decoded, mean, resources.tasks);
  });
  if (corrected) {
    result.bias = std::move(corrected->values);
    result.stored.statistics["bias_correction"] = corrected->largest_change;
  } else if (mean.defined()) {
    result.notes.push_back("the bias stays as it is: corrected, it would not be finite");
  }
}

}  // namespace

LayerResult run_layer(const Decision& decision, const at::Tensor& weight, std::int64_t seed, const RunResources& resources,
                      const at::Tensor& bias) {
  const auto start = std::chrono::steady_clock::now();
  const std::string& plugin = decision.quantizer->info().name;
  const std::string& name = decision.source.name;
  HostContext context(decision, weight, seed, resources);
  LayerResult result;
  result.stored = guard(plugin, "quantize", name, [&] {
    StoredLayer stored = decision.quantizer->quantize(weight, context);
    require_as_planned(decision, stored);
    return stored;
  });
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.notes = context.take_notes();
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : result.stored.tensors) tensors.push_back(tensor.data);
  report(result, decision, weight, tensors, bias, context.calibration(), resources);
  return result;
}

}  // namespace qmill
