#include "plan/automatic.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

bool writes(const Quantizer& quantizer, const WritableFormat& format) {
  const QuantizerInfo& info = quantizer.info();
  const auto has = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return same_name(name, format.info().name); });
  };
  return has(info.own_formats) || (info.formats.empty() ? as_coded(format) != nullptr : has(info.formats));
}

const Quantizer& plain_quantizer(const Host& host, const WritableFormat& format) {
  const Quantizer& rounding = host.plain_rounding();
  if (writes(rounding, format)) return rounding;
  for (const Quantizer* quantizer : host.quantizers())
    if (writes(*quantizer, format)) return *quantizer;
  throw Error(ErrorKind::plugin, fmt::format("no plugin that was found writes format '{}'", format.info().name), "see qmill plugins list");
}

bool may_be_automatic(const Host& host, const Quantizer& quantizer) {
  if (quantizer.info().rounds_to_nearest) return true;
  const std::vector<const Quantizer*> calibrated = calibrated_quantizers(host);
  return !calibrated.empty() && calibrated.front() == &quantizer;
}

std::vector<const Quantizer*> calibrated_quantizers(const Host& host) {
  std::vector<const Quantizer*> found;
  for (const Quantizer* quantizer : host.quantizers())
    if (quantizer->info().uses_calibration && quantizer->info().cost > 0) found.push_back(quantizer);
  std::stable_sort(found.begin(), found.end(),
                   [](const Quantizer* a, const Quantizer* b) { return a->info().cost < b->info().cost; });
  return found;
}

}  // namespace qmill
