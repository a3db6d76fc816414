#include "convert_model.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill::app {
namespace {

std::string quoted(const ConvertOptions& options) { return fmt::format("'{}'", options.input.string()); }

}  // namespace

PlannedModel plan_model(const Host& host, std::unique_ptr<TensorSource> source, const ConvertOptions& options, bool will_write) {
  if (will_write) check_destination(*source, options);
  Plan plan = make_plan(host, *source, options);
  return {std::move(source), std::move(plan)};
}

void require_layers(const PlannedModel& model, const ConvertOptions& options) {
  try {
    require_selection(model.plan);
  } catch (Error& error) {
    throw error.in(quoted(options));
  }
}

ConvertReport run_model(const PlannedModel& model, const ConvertOptions& options, const RunHooks& hooks) {
  try {
    return run_plan(*model.source, model.plan, options, hooks);
  } catch (QualityError&) {
    throw;
  } catch (Error& error) {
    if (error.kind() == ErrorKind::numeric || error.kind() == ErrorKind::plugin) error.in(quoted(options));
    throw error;
  }
}

}  // namespace qmill::app
