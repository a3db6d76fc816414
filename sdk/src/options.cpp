#include <qmill/options.h>

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace qmill {
namespace {

constexpr const char* kTrue[] = {"true", "on", "yes", "1"};
constexpr const char* kFalse[] = {"false", "off", "no", "0"};

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<OptionValue> parse_as(const OptionValue& type, std::string_view text) {
  if (std::holds_alternative<bool>(type)) {
    for (const char* word : kTrue)
      if (text == word) return true;
    for (const char* word : kFalse)
      if (text == word) return false;
    return std::nullopt;
  }
  if (std::holds_alternative<std::int64_t>(type)) {
    if (const auto number = parse_number<std::int64_t>(text)) return *number;
    return std::nullopt;
  }
  if (std::holds_alternative<double>(type)) {
    if (const auto number = parse_number<double>(text)) return *number;
    return std::nullopt;
  }
  return std::string(text);
}

bool is_allowed(const OptionSpec& spec, const OptionValue& value) {
  const auto within = [&](double number) { return number >= spec.at_least && number <= spec.at_most; };
  if (const auto* number = std::get_if<std::int64_t>(&value)) return within(static_cast<double>(*number));
  if (const auto* number = std::get_if<double>(&value)) return std::isfinite(*number) && within(*number);
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && spec.takes_numbers)
    if (const auto number = parse_number<double>(*text)) return std::isfinite(*number) && within(*number);
  if (text != nullptr)
    return spec.choices.empty() || std::find(spec.choices.begin(), spec.choices.end(), *text) != spec.choices.end();
  return true;
}

[[noreturn]] void reject(std::string_view owner, const OptionSpec& spec, std::string_view found) {
  throw Error(ErrorKind::usage, fmt::format("{} option '{}' is '{}'; allowed: {}", owner, spec.name, found, spec.allowed()));
}

const OptionSpec& find_spec(const std::vector<OptionSpec>& schema, std::string_view owner, std::string_view name) {
  std::vector<std::string> known;
  for (const OptionSpec& spec : schema) {
    if (same_name(spec.name, name)) return spec;
    known.push_back(spec.name);
  }
  throw Error(ErrorKind::usage, unknown_name_message(fmt::format("{} option", owner), name, known));
}

}  // namespace

std::string option_text(const OptionValue& value) {
  struct Text {
    std::string operator()(bool flag) const { return flag ? "true" : "false"; }
    std::string operator()(std::int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return fmt::format("{}", number); }
    std::string operator()(const std::string& text) const { return text; }
  };
  return std::visit(Text{}, value);
}

std::string OptionSpec::allowed() const {
  if (std::holds_alternative<bool>(initial)) return "true or false";
  if (std::holds_alternative<std::string>(initial) && takes_numbers) {
    OptionSpec number;
    number.initial = 0.0;
    number.at_least = at_least;
    number.at_most = at_most;
    return fmt::format("{}, or {}", fmt::join(choices, ", "), number.allowed());
  }
  if (std::holds_alternative<std::string>(initial))
    return choices.empty() ? "any text" : fmt::format("one of {}", fmt::join(choices, ", "));
  std::string text = std::holds_alternative<double>(initial) ? "a number" : "an integer";
  const bool low = std::isfinite(at_least);
  const bool high = std::isfinite(at_most);
  const auto bound = [&](double value) {
    return std::holds_alternative<double>(initial) ? fmt::format("{}", value) : fmt::format("{:.0f}", value);
  };
  if (low && high) return text + fmt::format(" from {} to {}", bound(at_least), bound(at_most));
  if (low) return text + fmt::format(" of at least {}", bound(at_least));
  if (high) return text + fmt::format(" of at most {}", bound(at_most));
  return text;
}

Options::Options(std::vector<OptionSpec> schema) : schema_(std::move(schema)) {
  for (const OptionSpec& spec : schema_) {
    if (!is_allowed(spec, spec.initial) || !values_.emplace(canonical_name(spec.name), spec.initial).second)
      throw Error(ErrorKind::plugin,
                  fmt::format("option '{}' of the schema is there twice or has a default that it does not allow", spec.name));
  }
}

void Options::set(std::string_view owner, std::string_view name, OptionValue value) {
  const OptionSpec& spec = find_spec(schema_, owner, name);
  if (std::holds_alternative<double>(spec.initial) && std::holds_alternative<std::int64_t>(value))
    value = static_cast<double>(std::get<std::int64_t>(value));
  if (value.index() != spec.initial.index() || !is_allowed(spec, value)) reject(owner, spec, option_text(value));
  values_[canonical_name(name)] = std::move(value);
}

void Options::parse(std::string_view owner, std::string_view name, std::string_view text) {
  const OptionSpec& spec = find_spec(schema_, owner, name);
  const std::optional<OptionValue> value = parse_as(spec.initial, text);
  if (!value) reject(owner, spec, text);
  set(owner, name, *value);
}

const OptionValue& Options::value(std::string_view name) const {
  const auto found = values_.find(canonical_name(name));
  if (found == values_.end()) throw Error(ErrorKind::internal, fmt::format("option '{}' is not in the schema", name));
  return found->second;
}

namespace {

template <class Type>
const Type& typed(const Options& options, std::string_view name) {
  const Type* value = std::get_if<Type>(&options.value(name));
  if (value == nullptr) throw Error(ErrorKind::internal, fmt::format("option '{}' is read as another type than it has", name));
  return *value;
}

}  // namespace

bool Options::boolean(std::string_view name) const { return typed<bool>(*this, name); }
std::int64_t Options::integer(std::string_view name) const { return typed<std::int64_t>(*this, name); }
double Options::real(std::string_view name) const { return typed<double>(*this, name); }
const std::string& Options::text(std::string_view name) const { return typed<std::string>(*this, name); }

std::map<std::string, OptionValue> Options::changed() const {
  std::map<std::string, OptionValue> changed;
  for (const OptionSpec& spec : schema_)
    if (const OptionValue& now = value(spec.name); now != spec.initial) changed.emplace(spec.name, now);
  return changed;
}

}  // namespace qmill
