#include "run/measure_layer.h"

#include "host/guard.h"
#include "report/measure.h"
#include "report/rounded.h"

#include <qmill/names.h>

namespace qmill {

MeasuredLayer measure_layer(const Decision& decision, const at::Tensor& weight, const std::vector<StoredTensor>& stored,
                            const LayerCalibration* calibration, bool wants_mean_shift, const RunResources& resources) {
  const auto& [format, layout, options] = decision.target;
  const bool is_rounded = decision.quantizer->info().rounds_to_nearest;
  MeasuredInputs inputs;
  if (calibration != nullptr) inputs.rows = calibration->held_out_rows();
  if (calibration != nullptr && wants_mean_shift) inputs.mean = calibration->mean();
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored) tensors.push_back(tensor.data);
  return guard(format->info().name, "decode", decision.source.name, [&] {
    std::vector<RowDecoder> versions = {stored_rows(std::move(tensors), decision.values, *format, layout)};
    const bool has_inputs = inputs.rows.defined() && inputs.rows.size(0) != 0;
    const CodedFormat* coded = as_coded(*format);
    if (has_inputs && !is_rounded && coded != nullptr)
      versions.push_back(rounded_rows(decision.values, weight, *coded, layout, resources));
    Measurement measured = measure(weight, versions, inputs, resources.tasks);
    MeasuredLayer result;
    result.quality = layer_quality(layer_base(decision.source.name), decision.label, measured.values);
    set_output_error(result.quality, measured.outputs, is_rounded);
    result.mean_shift = std::move(measured.mean_shift);
    return result;
  });
}

}  // namespace qmill
