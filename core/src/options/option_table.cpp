#include <qmill/core/option_table.h>

#include "options/rows.h"
#include "plan/automatic.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill {
namespace {

std::string text_of(const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "on" : "off";
  return option_text(value);
}

std::string allowed(const OptionRow& row) {
  if (row.is_switch()) return "on or off";
  return row.spec.choices.empty() || row.spec.takes_numbers ? row.spec.allowed() : fmt::format("{}", fmt::join(row.spec.choices, ", "));
}

// As the type of the row, and within its range.
OptionValue checked(const OptionRow& row, const GivenOption& given) {
  OptionSpec spec = row.spec;
  if (!row.has_default && !spec.choices.empty()) spec.initial = spec.choices.front();  // a schema wants a default that is allowed
  Options one({spec});
  const std::string& name = row.spec.name;
  const auto* text = std::get_if<std::string>(&given.value);
  try {
    if (given.is_text && text != nullptr)
      one.parse("", name, *text);
    else if (std::holds_alternative<std::string>(row.spec.initial))
      one.set("", name, std::holds_alternative<std::int64_t>(given.value) ? OptionValue(text_of(given.value)) : given.value);
    else
      one.set("", name, given.value);
  } catch (const Error&) {
    throw Error(ErrorKind::usage, fmt::format("`{}` is '{}'; allowed: {}", name, text_of(given.value), allowed(row)));
  }
  if (row.is_path && one.text(name).empty()) throw Error(ErrorKind::usage, fmt::format("`{}` is empty; name a file", name));
  return one.value(name);
}

// "format=fp16" -> format, fp16.
std::pair<std::string, std::string> meaning_of(const std::string& stands_for) {
  const std::size_t equals = stands_for.find('=');
  return {stands_for.substr(0, equals), stands_for.substr(equals + 1)};
}

// Whether rules of single layers may choose other quantizers than that of the run.
bool others_may_run(const OptionValues& values) {
  return values.has("layer_config") || values.has("custom_type") || values.has("fallback");
}

Error not_run(std::string_view name, const OptionRow& row, const OptionValues& values) {
  return Error(
      ErrorKind::usage,
      fmt::format("`{}` is an option of '{}', but `optimizer` is '{}'", name, fmt::join(owners(row), "', '"), values.text("optimizer")),
      "choose such a quantizer with `optimizer`, or leave this option out");
}

}  // namespace

bool OptionRow::is_of_weights() const {
  const bool is_of_run = spec.name == "threads" || spec.name == "device" || spec.name.starts_with("stream_");
  return !sets.empty() || group == "Format" || group == "Quantizer" || is_of_run || spec.name == "full_precision_matrix_mult";
}

std::string OptionRow::initial_text() const { return has_default ? text_of(spec.initial) : ""; }

const std::vector<OptionValue>& OptionValues::values(std::string_view name) const {
  static const std::vector<OptionValue> none;
  const auto found = values_.find(name);
  return found == values_.end() ? none : found->second;
}

bool OptionValues::given(std::string_view name) const { return given_.contains(name); }
bool OptionValues::has(std::string_view name) const { return !values(name).empty(); }

namespace {

template <class Type>
Type typed(const std::vector<OptionValue>& values, std::string_view name) {
  const Type* value = values.empty() ? nullptr : std::get_if<Type>(&values.front());
  if (value == nullptr) throw Error(ErrorKind::internal, fmt::format("option '{}' is not in the table as it is read", name));
  return *value;
}

}  // namespace

bool OptionValues::on(std::string_view name) const { return typed<bool>(values(name), name); }
std::int64_t OptionValues::integer(std::string_view name) const { return typed<std::int64_t>(values(name), name); }
double OptionValues::real(std::string_view name) const { return typed<double>(values(name), name); }
std::string OptionValues::text(std::string_view name) const { return has(name) ? typed<std::string>(values(name), name) : std::string(); }

std::optional<std::int64_t> OptionValues::maybe_integer(std::string_view name) const {
  return given(name) ? std::optional(integer(name)) : std::nullopt;
}

std::vector<std::string> OptionValues::list(std::string_view name) const {
  std::vector<std::string> texts;
  for (const OptionValue& value : values(name)) texts.push_back(std::get<std::string>(value));
  return texts;
}

OptionTable::OptionTable(const Host& host, std::optional<LayerConfig> config) : host_(host), config_(std::move(config)) {
  add_file_rows(rows_);
  add_storage_rows(rows_);
  add_input_rows(rows_);
  Rows run;
  add_run_rows(run);
  add_layer_rows(rows_, run, host);
  rows_.insert(rows_.end(), run.begin(), run.end());
  add_plugin_rows(rows_, host);
}

const OptionRow* OptionTable::find(std::string_view name) const {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const OptionRow& row) { return same_name(row.spec.name, name); });
  return found == rows_.end() ? nullptr : &*found;
}

OptionValues OptionTable::check(const std::vector<GivenOption>& given) const {
  OptionValues values;
  for (const OptionRow& row : rows_)
    if (row.has_default) values.values_[row.spec.name] = {row.spec.initial};
  for (const GivenOption& each : given) {
    const OptionRow* row = find(each.name);
    if (row == nullptr) {
      std::vector<std::string> known;
      for (const OptionRow& other : rows_) known.push_back(other.spec.name);
      throw Error(ErrorKind::usage, unknown_name_message("option", each.name, known));
    }
    std::vector<OptionValue>& list = values.values_[row->spec.name];
    const bool is_first = values.given_.emplace(row->spec.name, true).second;
    if (!is_first && !row->is_list)
      throw Error(ErrorKind::usage,
                  fmt::format("`{}` is given twice: '{}' and '{}'", row->spec.name, text_of(list.front()), text_of(each.value)));
    if (is_first) list.clear();
    list.push_back(checked(*row, each));
  }
  stand_for(values);
  return values;
}

void OptionTable::stand_for(OptionValues& values) const {
  std::map<std::string, std::string> by_target;  // option -> the switch that stood for its value
  for (const OptionRow& row : rows_) {
    if (row.stands_for.empty() || !values.on(row.spec.name)) continue;
    const auto [name, wanted] = meaning_of(row.stands_for);
    const OptionRow& target = *find(name);
    const OptionValue value = checked(target, {name, wanted, true});
    const bool is_decided = values.given(name) || by_target.contains(name);
    if (is_decided && !same_name(values.text(name), wanted))
      throw Error(ErrorKind::usage, fmt::format("`{}` stands for `{} {}`, but `{}` is '{}'; choose one", row.spec.name, name, wanted, name,
                                                values.text(name)));
    values.values_[name] = {value};
    values.given_.emplace(name, false);
    by_target.emplace(name, row.spec.name);
  }
}

bool OptionTable::may_run(const Quantizer& quantizer, const OptionValues& values) const {
  const std::string name = values.text("optimizer");
  if (config_ || others_may_run(values)) return true;
  if (same_name(name, "auto")) return may_be_automatic(host_, quantizer);
  return host_.find_quantizer(name) == &quantizer;
}

std::vector<std::string> OptionTable::rows_for_keyword(std::string_view name, const std::vector<GivenOption>& given) const {
  if (const OptionRow* row = find(name); row != nullptr && !row->is_of_plugins()) return {row->spec.name};
  const OptionValues values = check(given);
  std::vector<std::string> names, known;
  const OptionRow* not_running = nullptr;
  for (const OptionRow& row : rows_) {
    if (!row.is_of_plugins()) known.push_back(row.spec.name);
    const bool is_row = same_name(row.spec.name, name);
    bool runs = false, is_this = is_row;
    for (const auto& [quantizer, option] : row.sets) {
      known.push_back(option);
      if (!is_row && !same_name(option, name)) continue;
      is_this = true;
      runs = runs || may_run(*quantizer, values);
    }
    if (!is_this || row.sets.empty()) continue;
    if (runs) names.push_back(row.spec.name);
    if (!runs) not_running = &row;
  }
  if (!names.empty()) return names;
  if (not_running != nullptr) throw not_run(name, *not_running, values);
  throw Error(ErrorKind::usage, unknown_name_message("option", name, known));
}

void OptionTable::apply_plugin_rows(ConvertOptions& options, const OptionValues& values) const {
  for (const OptionRow& row : rows_) {
    if (row.sets.empty() || !values.given(row.spec.name)) continue;
    if (row.is_of_plugins() && std::none_of(row.sets.begin(), row.sets.end(), [&](const auto& set) { return may_run(*set.first, values); }))
      throw not_run(row.spec.name, row, values);
    for (const auto& [quantizer, option] : row.sets) {
      std::map<std::string, OptionValue>& of_quantizer = options.target.quantizer_options[quantizer->info().name];
      const auto [entry, is_new] = of_quantizer.emplace(option, values.values(row.spec.name).front());
      if (!is_new)
        throw Error(ErrorKind::usage,
                    fmt::format("`block_size` and `{}` set the same option of '{}'; give one", row.spec.name, quantizer->info().name));
    }
  }
}

std::map<std::string, std::string> OptionTable::recorded(const OptionValues& values) const {
  std::map<std::string, std::string> record;
  for (const OptionRow& row : rows_) {
    const auto given = values.given_.find(row.spec.name);
    if (!row.changes_bytes || given == values.given_.end() || !given->second) continue;
    std::vector<std::string> texts;
    for (const OptionValue& value : values.values(row.spec.name)) {
      std::string text = text_of(value);
      if (row.is_path) text = std::filesystem::path(text).filename().string();
      texts.push_back(std::move(text));
    }
    const std::string text = fmt::format("{}", fmt::join(texts, ","));
    std::string name = row.spec.name;
    std::replace(name.begin(), name.end(), '_', '-');
    if (!row.has_default || text != row.initial_text()) record[name] = text;
  }
  return record;
}

ConvertOptions OptionTable::read(const std::vector<GivenOption>& given) const {
  const OptionValues values = check(given);
  if (config_ && values.has("layer_config"))
    throw Error(ErrorKind::usage, fmt::format("`layer_config` is given twice: parsed, and as '{}'", values.text("layer_config")));
  ConvertOptions options;
  for (const OptionRow& row : rows_)
    if (row.apply) row.apply(options, values);
  settle_storage(options, values, host_);
  apply_plugin_rows(options, values);
  options.recorded = recorded(values);
  if (config_) {
    options.layers.config = config_;
    options.recorded["layer-config"] = config_->origin.empty() ? "given" : std::filesystem::path(config_->origin).filename().string();
  }
  return options;
}

void OptionTable::add_automatic_filter(std::vector<GivenOption>& given) const {
  const auto chooses_filters = [&](const GivenOption& each) {
    const OptionRow* row = find(each.name);
    if (row == nullptr) return false;
    const bool is_off = each.value == OptionValue(std::string("off")) || each.value == OptionValue(false);
    return same_name(row->spec.name, "filter") || (row->is_filter && !is_off);
  };
  if (std::none_of(given.begin(), given.end(), chooses_filters)) given.push_back({"filter", std::string(kAutomaticFilter), true});
}

}  // namespace qmill
