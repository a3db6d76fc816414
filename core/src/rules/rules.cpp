#include "rules/rules.h"

#include "host/guard.h"

#include <qmill/names.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr const char* kCustomLayers = "`custom_layers`";
constexpr const char* kExcludeLayers = "`exclude_layers`";
constexpr const char* kFallback = "`fallback`";
constexpr const char* kEmbeddings = "`embeddings`";

std::string quoted(std::string_view what, std::string_view name) { return fmt::format("{} '{}'", what, name); }

// A type is a format's name or a quantizer's; formats go first, as fp16 is both.
void set_type(LayerChoice& choice, const Host& host, std::string_view option, const std::string& type) {
  if (host.find_format(type) != nullptr) {
    choice.format = type;
  } else if (host.find_quantizer(type) != nullptr) {
    choice.quantizer = type;
  } else {
    std::vector<std::string> known;
    for (const StoredFormat* format : host.formats())
      if (as_writable(*format) != nullptr) known.push_back(format->info().name);
    for (const Quantizer* quantizer : host.quantizers()) known.push_back(quantizer->info().name);
    throw Error(ErrorKind::usage, unknown_name_message("format or quantizer", type, known)).in(std::string(option));
  }
}

// A table is looked up and not multiplied with: plain rounding is the best there is, and readers do not rotate it back.
LayerChoice choice_of(Embeddings embeddings) {
  LayerChoice choice;
  choice.simple = true;
  choice.format = embeddings == Embeddings::fp8 ? "float8_e4m3fn" : "int8";
  choice.scaling = embeddings == Embeddings::fp8 ? Scaling::tensor : Scaling::row;
  choice.rotation = Rotation{Rotation::Mode::off};
  return choice;
}

}  // namespace

Rules::Rules(const Host& host, const LayerSelection& selection, std::vector<const ModelFilter*> filters,
             std::function<bool(const TensorInfo&)> takes_table)
    : selection_(selection), filters_(std::move(filters)), takes_table_(std::move(takes_table)) {
  if (!selection.custom.pattern.empty()) {
    if (selection.custom.type.empty())
      throw Error(ErrorKind::usage, "`custom_layers` needs `custom_type`: their format or quantizer", "for example `custom_type int8`");
    custom_.emplace(selection.custom.pattern);
    set_type(custom_choice_, host, "`custom_type`", selection.custom.type);
    custom_choice_.block_size = selection.custom.block_size;
    custom_choice_.scaling = selection.custom.scaling;
    custom_choice_.simple = selection.custom.simple;
  }
  if (!selection.exclude.empty()) exclude_.emplace(selection.exclude);
  if (!selection.fallback.type.empty()) {
    fallback_choice_.emplace();
    set_type(*fallback_choice_, host, "`fallback`", selection.fallback.type);
    fallback_choice_->block_size = selection.fallback.block_size;
    fallback_choice_->simple = selection.fallback.simple;
  }
  if (takes_table_ && selection.embeddings != Embeddings::off) table_choice_ = choice_of(selection.embeddings);
}

bool Rules::hits(const std::optional<Regex>& regex, const char* option, const TensorInfo& tensor) {
  if (!regex || !regex->search(tensor.name)) return false;
  used_.insert(option);
  return true;
}

Verdict Rules::decide(const TensorInfo& tensor) {
  std::string kept_by_filter;
  std::string filter_reason;
  for (const ModelFilter* filter : filters_) {
    const std::string& name = filter->info().name;
    const FilterVerdict verdict = guard(name, "classify", tensor.name, [&] { return filter->classify(tensor); });
    if (verdict.treatment == Treatment::quantize) continue;
    used_.insert(quoted("filter", name));
    if (verdict.treatment == Treatment::remove)
      return {Treatment::remove, "remove", fmt::format("filter {}: {}", name, verdict.reason), {}, false};
    if (kept_by_filter.empty()) {
      kept_by_filter = name;
      filter_reason = verdict.reason;
    }
  }

  if (selection_.config) {
    const LayerPattern* pattern = most_specific(*selection_.config, layer_base(tensor.name), selection_.config_fullmatch);
    const LayerChoice* choice = pattern != nullptr                ? &pattern->choice
                                : selection_.config->fallback ? &*selection_.config->fallback
                                                                  : nullptr;
    if (pattern != nullptr) used_.insert(quoted("layer config pattern", pattern->text));
    if (choice != nullptr)
      return {choice->skip ? Treatment::keep : Treatment::quantize, "layer_config", pattern != nullptr ? pattern->text : "_default",
              *choice, false};
  }
  if (hits(custom_, kCustomLayers, tensor))
    return {Treatment::quantize, "custom", selection_.custom.pattern, custom_choice_, selection_.custom.heuristic};

  const bool excluded = hits(exclude_, kExcludeLayers, tensor);
  if (!excluded && table_choice_ && takes_table_(tensor)) {
    used_.insert(kEmbeddings);
    return {Treatment::quantize, "embeddings", "a table of tokens", *table_choice_, false};
  }
  if (excluded || !kept_by_filter.empty()) {
    const std::string rule = excluded ? "exclude" : "filter";
    const std::string reason = excluded ? selection_.exclude : fmt::format("{}: {}", kept_by_filter, filter_reason);
    if (!fallback_choice_) return {Treatment::keep, rule, reason, {}, false};
    used_.insert(kFallback);
    return {Treatment::quantize, "fallback", fmt::format("{} {}", rule, reason), *fallback_choice_, false};
  }
  return {Treatment::quantize, "primary", "", {}, selection_.skip_inefficient};
}

std::vector<std::string> Rules::unused(const ModelFilter* automatic) const {
  std::vector<std::string> lines;
  const auto check = [&](const std::string& description, const std::string& text) {
    if (!used_.contains(description)) lines.push_back(fmt::format("{} decided about no tensor", text));
  };
  if (custom_) check(kCustomLayers, quoted(kCustomLayers, selection_.custom.pattern));
  if (fallback_choice_) check(kFallback, quoted(kFallback, selection_.fallback.type));
  if (table_choice_) check(kEmbeddings, kEmbeddings);
  if (exclude_) check(kExcludeLayers, quoted(kExcludeLayers, selection_.exclude));
  for (const ModelFilter* filter : filters_)
    if (filter != automatic) check(quoted("filter", filter->info().name), quoted("filter", filter->info().name));
  if (selection_.config)
    for (const auto* patterns : {&selection_.config->patterns, &selection_.config->exclusions})
      for (const LayerPattern& pattern : *patterns) {
        const std::string description = quoted("layer config pattern", pattern.text);
        check(description, description);
      }
  return lines;
}

}  // namespace qmill
