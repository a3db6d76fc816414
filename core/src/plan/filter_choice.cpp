#include "plan/filter_choice.h"

#include "host/filter_pack.h"
#include "host/guard.h"

#include <qmill/core/plan.h>
#include <qmill/names.h>

#include <algorithm>

namespace qmill {

FilterChoice choose_filters(const Host& host, const TensorSource& source, const ConvertOptions& options) {
  FilterChoice choice;
  choice.architecture = recognise(host, source);
  const auto add = [&](const std::string& name) {
    const auto is_this = [&](const std::string& other) { return same_name(other, name); };
    if (std::none_of(choice.filters.begin(), choice.filters.end(), is_this)) choice.filters.push_back(name);
  };
  for (const std::string& name : options.layers.filters) {
    if (!same_name(name, kReservedFilterName)) {
      add(name);
    } else if (choice.architecture) {
      add(choice.architecture->filter->info().name);
    } else {
      throw Error(ErrorKind::input, "`filter auto` finds no filter: the names of its tensors fit no known architecture",
                  "name one, such as generic_text or generic_diffusion, or leave it out (all: qmill filters list)")
          .in(fmt::format("'{}'", options.input.string()));
    }
  }
  return choice;
}

std::string filter_hint(const FilterChoice& choice, const ConvertOptions& options, const std::vector<Decision>& decisions) {
  if (!choice.architecture || !options.layers.filters.empty() || !options.layers.exclude.empty() || options.layers.config) return {};
  const ModelFilter& filter = *choice.architecture->filter;
  const std::string& name = filter.info().name;
  std::size_t kept = 0;
  for (const Decision& decision : decisions) {
    if (!decision.is_layer || decision.action != Action::quantize) continue;
    const FilterVerdict verdict = guard(name, "classify", decision.source.name, [&] { return filter.classify(decision.source); });
    if (verdict.treatment != Treatment::quantize) ++kept;
  }
  if (kept == 0) return {};
  return fmt::format("this is {}; `filter {}` (or auto) would keep {} that {} quantized", choice.architecture->name, name,
                     kept == 1 ? "1 layer" : fmt::format("{} layers", kept), kept == 1 ? "is" : "are");
}

void require_stable_names(const FilterChoice& choice, const std::vector<Decision>& decisions) {
  if (!choice.architecture || !choice.architecture->renamed_by_readers) return;
  const auto has_marker = [](const Decision& decision) { return decision.action == Action::quantize && !decision.label.marker.empty(); };
  const auto marked = std::find_if(decisions.begin(), decisions.end(), has_marker);
  if (marked == decisions.end()) return;
  throw Error(
      ErrorKind::input,
      fmt::format("its tensors are named as diffusers names them ({}): ComfyUI renames and joins them while it loads them, the "
                  "marker and scale of '{}' would stay behind, and the model would make noise",
                  choice.architecture->name, marked->source.name),
      "convert a checkpoint in the model's own layout; for other readers `comfy_quant off` writes legacy names, which are not checked");
}

}  // namespace qmill
