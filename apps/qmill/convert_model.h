// One model through core, for convert and batch alike: every error names the model.
#pragma once

#include <qmill/core/convert.h>

namespace qmill::app {

struct PlannedModel {
  std::unique_ptr<TensorSource> source;
  Plan plan;
};

// `will_write`: throws for a destination that cannot be written, before a heuristic reads everything.
PlannedModel plan_model(const Host& host, std::unique_ptr<TensorSource> source, const ConvertOptions& options, bool will_write);

// Throws Error(input) when the plan quantizes nothing.
void require_layers(const PlannedModel& model, const ConvertOptions& options);

ConvertReport run_model(const PlannedModel& model, const ConvertOptions& options, const RunHooks& hooks);

}  // namespace qmill::app
