#include <qmill/core/conversion.h>

#include "model/renamed_source.h"
#include "plan/input_files.h"

#include <qmill/core/decoded_source.h>

#include <fmt/format.h>

namespace qmill {

Conversion::Conversion(const Host& host, ConvertOptions options) : host_(&host), options_(std::move(options)) {
  source_ = host.open(options_.input);
  try {
    if (options_.rename) source_ = renamed(std::move(source_));
    if (options_.dequantize_source || options_.decode_to) source_ = decoded(host, std::move(source_));
  } catch (Error& error) {
    throw in_model(error);
  }
}

Conversion::~Conversion() = default;
Conversion::Conversion(Conversion&&) noexcept = default;

Error& Conversion::in_model(Error& error) const { return error.in(fmt::format("'{}'", options_.input.string())); }

std::vector<std::filesystem::path> Conversion::input_files() const { return qmill::input_files(*source_, options_); }

void Conversion::check_destination() const { qmill::check_destination(*source_, options_); }

const Plan& Conversion::plan(const std::atomic<bool>* cancel) {
  if (!plan_) plan_ = make_plan(*host_, *source_, options_, cancel);
  return *plan_;
}

void Conversion::require_selection() {
  try {
    qmill::require_selection(plan());
  } catch (Error& error) {
    throw in_model(error);
  }
}

ConvertReport Conversion::run(const RunHooks& hooks) {
  check_destination();  // before a heuristic reads everything
  plan(hooks.cancel);
  require_selection();
  try {
    return run_plan(*source_, *plan_, hooks);
  } catch (QualityError&) {
    throw;
  } catch (Error& error) {
    if (error.kind() == ErrorKind::numeric || error.kind() == ErrorKind::plugin) in_model(error);
    throw error;
  }
}

std::vector<LayerQuality> qualities(const ConvertReport& report) {
  std::vector<LayerQuality> qualities;
  for (const LayerReport& layer : report.layers)
    if (layer.quality.is_measured) qualities.push_back(layer.quality);
  return qualities;
}

std::vector<std::string> warnings(const Plan& plan, const ConvertReport& report) {
  std::vector<std::string> warnings = plan.warnings;
  warnings.insert(warnings.end(), report.warnings.begin(), report.warnings.end());
  const double threshold = plan.options.quality_threshold;
  for (const LayerQuality& layer : qualities(report))
    if (is_below(layer, threshold)) warnings.push_back(shortfall_text(layer, threshold));
  return warnings;
}

}  // namespace qmill
