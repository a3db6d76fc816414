// Which filters a conversion uses, and what the model's own filter would have done.
#pragma once

#include <qmill/core/architecture.h>
#include <qmill/core/convert_options.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace qmill {

struct Decision;

struct FilterChoice {
  std::optional<Architecture> architecture;
  std::vector<const ModelFilter*> filters;        // in the order in which they are asked
  std::shared_ptr<const ModelFilter> structural;  // owned here, if it is among them
  const ModelFilter* automatic = nullptr;         // what "auto" became; null: it was not asked for, or means none
  bool is_guess = false;                          // "auto" found no filter of the model and took the structural one

  std::vector<std::string> names() const;
};

// `casts`: the run stores floats, of which "auto" keeps none. Throws Error(usage) for a name that nothing has.
FilterChoice choose_filters(const Host& host, const TensorSource& source, const ConvertOptions& options, bool casts);

// Lines for people about a choice that could be better: "this is flux1; `filter flux` (or auto) would keep 5 layers that are quantized".
std::vector<std::string> filter_hints(const FilterChoice& choice, const ConvertOptions& options, const std::vector<Decision>& decisions);

// Throws Error(input) when readers would part the layers of this plan from their markers.
void require_stable_names(const FilterChoice& choice, const std::vector<Decision>& decisions);

}  // namespace qmill
