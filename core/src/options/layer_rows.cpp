#include "options/rows.h"

#include <qmill/names.h>

#include <algorithm>

namespace qmill {
namespace {

void set_custom(ConvertOptions& options, const OptionValues& values) {
  CustomLayers& custom = options.layers.custom;
  custom.pattern = values.text("custom_layers");
  custom.type = values.text("custom_type");
  custom.block_size = values.maybe_integer("custom_block_size");
  if (values.has("custom_scaling_mode")) custom.scaling = parse_scaling(values.text("custom_scaling_mode"));
  custom.simple = values.on("custom_simple");
  custom.heuristic = values.on("custom_heur");
}

void set_fallback(ConvertOptions& options, const OptionValues& values) {
  options.layers.fallback = {values.text("fallback"), values.maybe_integer("fallback_block_size"), values.on("fallback_simple")};
}

void set_embeddings(ConvertOptions& options, const OptionValues& values) {
  const std::string text = values.text("embeddings");
  options.layers.embeddings = text == "int8" ? Embeddings::int8 : text == "fp8" ? Embeddings::fp8 : Embeddings::off;
}

void set_filters(ConvertOptions& options, const OptionValues& values) {
  if (values.given("filter")) options.layers.filters = values.list("filter");
}

void add_filters(Rows& rows, RowGroup& layers, const Host& host) {
  const auto is_taken = [&](const std::string& name) {
    return std::any_of(rows.begin(), rows.end(), [&](const OptionRow& row) { return same_name(row.spec.name, name); });
  };
  for (const ModelFilter* filter : host.filters()) {
    const std::string name = canonical_name(filter->info().name);
    if (is_taken(name)) continue;  // reached through `filter`
    layers
        .toggle(name, false, filter->info().summary,
                [name, filter](ConvertOptions& options, const OptionValues& values) {
                  std::vector<std::string>& filters = options.layers.filters;
                  const auto is_this = [&](const std::string& other) { return same_name(other, name); };
                  if (values.on(name) && std::none_of(filters.begin(), filters.end(), is_this)) filters.push_back(filter->info().name);
                })
        .is_filter = true;
  }
}

void set_block_size(OptionRow& row) {
  row.spec.at_least = 1;
  row.spec.at_most = kLargestInteger;
}

}  // namespace

void add_layer_rows(Rows& rows, const Rows& later, const Host& host) {
  RowGroup layers(rows, "Which layers");
  OptionRow& filter = layers.value("filter", "NAME", std::string(kNoFilter),
                                   "keep the layers that this filter names (qmill filters list); auto: the filter of this model, or "
                                   "structural if the model is not known; structural: embeddings, first and last layers, modulation and "
                                   "norms; none: keep nothing; several may be given",
                                   set_filters);
  filter.is_list = filter.is_common = true;
  Rows others;  // filters must not take their names
  RowGroup rest(others, "Which layers");
  rest.optional("exclude_layers", "REGEX", std::string(), "keep tensors whose name matches",
                [](ConvertOptions& options, const OptionValues& values) { options.layers.exclude = values.text("exclude_layers"); })
      .is_common = true;
  rest.optional("fallback", "TYPE", std::string(),
                "convert excluded layers to this format (int8, fp16) or with this quantizer, instead of keeping them", set_fallback);
  set_block_size(rest.optional("fallback_block_size", "N", std::int64_t{128}, "block scaling for excluded layers"));
  rest.toggle("fallback_simple", false, "plain rounding for excluded layers");
  rest.value("embeddings", "int8|fp8|off", std::string("off"),
             "store the tables of tokens so by plain rounding, where the reader loads that, although filters keep them (docs/rules.md); "
             "off: as other layers",
             set_embeddings)
      .spec.choices = {"int8", "fp8", "off"};
  rest.optional("custom_layers", "REGEX", std::string(), "tensors whose name matches become `custom_type`", set_custom).is_common = true;
  rest.optional("custom_type", "TYPE", std::string(), "format (int8, fp16) or quantizer of custom layers; required with `custom_layers`")
      .is_common = true;
  set_block_size(rest.optional("custom_block_size", "N", std::int64_t{128}, "block scaling for custom layers"));
  rest.optional("custom_scaling_mode", "MODE", std::string(), "scaling of custom layers").spec.choices = {"row", "tensor", "block", "axis"};
  rest.toggle("custom_simple", false, "plain rounding for custom layers");
  rest.toggle("custom_heur", false, "`heur` for custom layers");
  rest.toggle("heur", false, "keep layers that are small, do not divide into blocks, or round badly",
              [](ConvertOptions& options, const OptionValues& values) { options.layers.skip_inefficient = values.on("heur"); });
  OptionRow& config = rest.optional("layer_config", "FILE", std::string(), "choices per layer, as JSON (docs/layer-config.md)",
                                    [](ConvertOptions& options, const OptionValues& values) {
                                      if (values.has("layer_config")) options.layers.config = load_layer_config(values.text("layer_config"));
                                    });
  config.is_path = config.is_common = true;
  rest.toggle("fullmatch", false, "patterns of the layer configuration must match whole names",
              [](ConvertOptions& options, const OptionValues& values) { options.layers.config_fullmatch = values.on("fullmatch"); });

  Rows taken = rows;
  taken.insert(taken.end(), others.begin(), others.end());
  taken.insert(taken.end(), later.begin(), later.end());
  const std::size_t before = taken.size();
  RowGroup switches(taken, "Which layers");
  add_filters(taken, switches, host);
  rows.insert(rows.end(), taken.begin() + static_cast<std::ptrdiff_t>(before), taken.end());
  rows.insert(rows.end(), others.begin(), others.end());
}

}  // namespace qmill
