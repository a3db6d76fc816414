#include <qmill/core/readers.h>

#include "readers/modules.h"
#include "readers/reader_formats.h"

#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

ReaderNeed reader_of(const Decision& decision) {
  // Without a marker readers take the values as they are: right for floats, wrong for codes.
  if (decision.label.marker.empty()) return {decision.outputs.size() == 1 && is_floating(decision.outputs.front().dtype), {}};
  const ReaderFormat* format = find_reader_format(decision.label.name);
  return format == nullptr ? ReaderNeed{} : ReaderNeed{true, std::string(format->since_in(module_kind(layer_base(decision.source.name))))};
}

PlanReader reader_of(const Plan& plan) {
  PlanReader reader{true, "", ""};
  bool has_markers = false;
  for (const Decision& decision : plan.decisions) {
    if (decision.action != Action::quantize) continue;
    const ReaderNeed need = reader_of(decision);
    if (!need.loads)
      return {false, "",
              fmt::format("{}{}", decision.label.name,
                          decision.label.marker.empty()                    ? " with legacy names"
                          : decision.target.layout.scaling == Scaling::row ? ""
                                                                           : "; `scaling_mode row` does")};
    reader.since = std::max(reader.since, need.since);
    has_markers = has_markers || !decision.label.marker.empty();
  }
  if (plan.output.has_shards()) return {false, "", "a model in several files"};
  if (!plan.not_loaded.empty()) return {false, "", plan.not_loaded};
  if (has_markers && !plan.not_judged.empty()) {
    reader.loads = std::nullopt;
    reader.because = plan.not_judged;
  }
  return reader;
}

std::string readers_text(const Plan& plan) {
  const PlanReader reader = reader_of(plan);
  if (reader.loads == false) return fmt::format("mainline ComfyUI does not load {}", reader.because);
  const std::string since = reader.since.empty() ? "" : fmt::format("ComfyUI {} or newer", reader.since);
  if (reader.loads) return since;
  return fmt::format("not known: {}{}", reader.because, since.empty() ? "" : fmt::format(" (the formats need {})", since));
}

}  // namespace qmill
