#include "plan/filter_choice.h"

#include "host/guard.h"
#include "plan/words.h"
#include "rules/structural_filter.h"

#include <qmill/core/plan.h>
#include <qmill/names.h>

#include <algorithm>

namespace qmill {

namespace {

void require_alone(const std::vector<std::string>& filters) {
  for (const std::string& name : filters)
    if (!same_name(name, kNoFilter))
      throw Error(ErrorKind::usage, fmt::format("`filter none` keeps nothing, but the filter '{}' is given, too", name),
                  "leave one of them out");
}

}  // namespace

std::vector<std::string> FilterChoice::names() const {
  std::vector<std::string> list;
  for (const ModelFilter* filter : filters) list.push_back(filter->info().name);
  return list;
}

FilterChoice choose_filters(const Host& host, const TensorSource& source, const ConvertOptions& options, bool casts) {
  FilterChoice choice;
  choice.architecture = recognise(host, source);
  const auto add = [&](const ModelFilter& filter) {
    if (std::find(choice.filters.begin(), choice.filters.end(), &filter) == choice.filters.end()) choice.filters.push_back(&filter);
  };
  const auto add_structural = [&] {
    if (!choice.structural) choice.structural = std::make_shared<StructuralFilter>(source.tensors());
    add(*choice.structural);
  };
  for (const std::string& name : options.layers.filters) {
    if (same_name(name, kNoFilter)) {
      require_alone(options.layers.filters);
    } else if (same_name(name, kStructuralFilter)) {
      add_structural();
    } else if (!same_name(name, kAutomaticFilter)) {
      add(host.filter(name));
    } else if (casts) {
      continue;
    } else if (choice.architecture) {
      choice.automatic = choice.architecture->filter;
      add(*choice.automatic);
    } else {
      choice.is_guess = true;
      add_structural();
      choice.automatic = choice.structural.get();
    }
  }
  return choice;
}

namespace {

std::string guess_hint(const FilterChoice& choice, const std::vector<Decision>& decisions) {
  const auto is_kept = [&](const Decision& decision) {
    return decision.is_layer && decision.rule != "embeddings" &&
           choice.structural->classify(decision.source).treatment != Treatment::quantize;
  };
  const auto kept = static_cast<std::size_t>(std::count_if(decisions.begin(), decisions.end(), is_kept));
  if (kept == 0)
    return fmt::format("the architecture is not recognised, and `filter {}` keeps no layer; `filter NAME` chooses another",
                       kStructuralFilter);
  return fmt::format(
      "the architecture is not recognised: `filter {}` keeps {} (embeddings, first and last layers, modulation, norms); "
      "the plan shows them, `filter none` keeps none, `filter NAME` chooses another",
      kStructuralFilter, counted(kept, "layer"));
}

std::string own_filter_hint(const FilterChoice& choice, const std::vector<Decision>& decisions) {
  const ModelFilter& filter = *choice.architecture->filter;
  const std::string& name = filter.info().name;
  std::size_t kept = 0;
  for (const Decision& decision : decisions) {
    if (!decision.is_layer || decision.action != Action::quantize || decision.rule == "embeddings") continue;
    const FilterVerdict verdict = guard(name, "classify", decision.source.name, [&] { return filter.classify(decision.source); });
    if (verdict.treatment != Treatment::quantize) ++kept;
  }
  if (kept == 0) return {};
  return fmt::format("this is {}; `filter {}` (or auto) would keep {} that {} quantized", choice.architecture->name, name,
                     counted(kept, "layer"), kept == 1 ? "is" : "are");
}

}  // namespace

std::vector<std::string> filter_hints(const FilterChoice& choice, const ConvertOptions& options, const std::vector<Decision>& decisions) {
  if (choice.is_guess) return {guess_hint(choice, decisions)};
  if (!choice.architecture || !options.layers.filters.empty() || !options.layers.exclude.empty() || options.layers.config) return {};
  std::string hint = own_filter_hint(choice, decisions);
  return hint.empty() ? std::vector<std::string>{} : std::vector<std::string>{std::move(hint)};
}

void require_stable_names(const FilterChoice& choice, const std::vector<Decision>& decisions) {
  if (!choice.architecture || !choice.architecture->renamed_by_readers) return;
  const auto has_marker = [](const Decision& decision) { return decision.action == Action::quantize && !decision.label.marker.empty(); };
  const auto marked = std::find_if(decisions.begin(), decisions.end(), has_marker);
  if (marked == decisions.end()) return;
  throw Error(ErrorKind::input,
              fmt::format("its tensors are named as diffusers names them ({}): ComfyUI renames and joins them while it loads them, the "
                          "marker and scale of '{}' would stay behind, and the model would make noise",
                          choice.architecture->name, marked->source.name),
              "convert a checkpoint in the model's own layout; `target any` converts it for other readers");
}

}  // namespace qmill
