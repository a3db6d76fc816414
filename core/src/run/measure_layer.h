// The step of a layer in which what is stored is measured against its values.
#pragma once

#include "engine/resources.h"

#include <qmill/core/plan.h>
#include <qmill/core/quality.h>

namespace qmill {

struct MeasuredLayer {
  LayerQuality quality;
  at::Tensor mean_shift;  // F64 [N]: see report/measure.h; undefined where it was not asked for or the mean input is not known
};

// `stored`: the tensors of the layer as they go to the file, in order. Each is decoded once for all figures.
MeasuredLayer measure_layer(const Decision& decision, const at::Tensor& weight, const std::vector<StoredTensor>& stored,
                            const LayerCalibration* calibration, bool wants_mean_shift, const RunResources& resources);

}  // namespace qmill
