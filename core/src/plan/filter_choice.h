// Which filters a conversion uses, and what the model's own filter would have done.
#pragma once

#include <qmill/core/architecture.h>
#include <qmill/core/convert_options.h>

#include <optional>
#include <string>
#include <vector>

namespace qmill {

struct Decision;

struct FilterChoice {
  std::optional<Architecture> architecture;
  std::vector<std::string> filters;  // names, in the order in which they are asked; "auto" replaced
};

// Throws Error(input) when a filter is to be chosen by a model that nothing recognises.
FilterChoice choose_filters(const Host& host, const TensorSource& source, const ConvertOptions& options);

// "this is flux1; `filter flux` (or auto) would keep 5 layers that are quantized": a line for people, empty when there is nothing to say.
std::string filter_hint(const FilterChoice& choice, const ConvertOptions& options, const std::vector<Decision>& decisions);

// Throws Error(input) when readers would part the layers of this plan from their markers.
void require_stable_names(const FilterChoice& choice, const std::vector<Decision>& decisions);

}  // namespace qmill
