#include <qmill/core/readers.h>

#include "readers/reader_formats.h"

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

ReaderNeed reader_of(const Decision& decision) {
  // Without a marker readers take the values as they are: right for floats, wrong for codes.
  if (decision.label.marker.empty()) return {decision.outputs.size() == 1 && is_floating(decision.outputs.front().dtype), {}};
  const ReaderFormat* format = find_reader_format(decision.label.name);
  return format == nullptr ? ReaderNeed{} : ReaderNeed{true, std::string(format->since)};
}

std::string readers_text(const Plan& plan) {
  std::string since;
  for (const Decision& decision : plan.decisions) {
    if (decision.action != Action::quantize) continue;
    const ReaderNeed need = reader_of(decision);
    if (!need.loads)
      return fmt::format("mainline ComfyUI does not load {}{}", decision.label.name,
                         decision.label.marker.empty()                    ? " with legacy names"
                         : decision.target.layout.scaling == Scaling::row ? ""
                                                                          : "; `scaling_mode row` does");
    since = std::max(since, need.since);
  }
  return since.empty() ? "" : fmt::format("ComfyUI {} or newer", since);
}

}  // namespace qmill
