#include "run/run_layer.h"

#include "calibration/calibration.h"
#include "run/cast_tensor.h"
#include "run/choose_codes.h"
#include "run/correct_bias.h"
#include "run/measure_layer.h"

#include <qmill/names.h>

namespace qmill {
namespace {

LayerQuality not_measured(const Decision& decision) {
  LayerQuality quality = layer_quality(layer_base(decision.source.name), decision.label, {});
  quality.is_measured = false;
  return quality;
}

}  // namespace

FinishedLayer run_layer(const Plan& plan, const Decision& decision, const LayerValues& values, const RunResources& resources) {
  std::unique_ptr<LayerCalibration> calibration;
  if (plan.calibration) calibration = plan.calibration->for_layer(decision.values, resources, values.weight);

  ChosenLayer chosen = choose_codes(decision, values.weight, calibration.get(), plan.seed, resources);
  MeasuredLayer measured;
  if (plan.options.run.measures || decision.bias)
    measured = measure_layer(decision, values.weight, chosen.stored.tensors, calibration.get(), values.bias.defined(), resources);
  if (!plan.options.run.measures) measured.quality = not_measured(decision);

  FinishedLayer finished;
  LayerReport& report = finished.report;
  report.quality = std::move(measured.quality);
  report.quantizer = decision.quantizer->info().name;
  report.notes = std::move(chosen.notes);
  report.statistics = std::move(chosen.stored.statistics);
  report.seconds = chosen.seconds;
  finished.tensors = std::move(chosen.stored.tensors);
  if (!decision.bias) return finished;

  at::Tensor bias = values.bias;
  if (measured.mean_shift.defined()) {
    if (std::optional<CorrectedBias> corrected = correct_bias(bias, measured.mean_shift)) {
      bias = std::move(corrected->values);
      report.statistics["bias_correction"] = corrected->largest_change;
    } else {
      report.notes.emplace_back("the bias stays as it is: corrected, it would not be finite");
    }
  }
  finished.tensors.push_back(cast_tensor(plan.decisions[*decision.bias], bias, plan.options, resources.buffers));
  return finished;
}

}  // namespace qmill
