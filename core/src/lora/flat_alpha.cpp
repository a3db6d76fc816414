#include "lora/flat_alpha.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace qmill {
namespace {

constexpr std::array<std::string_view, 4> kKeys = {"lora_alpha", "network_alpha", "ss_network_alpha", "alpha"};
// What programs write that have no number: kohya's for a file without alpha, and for one whose ranks were changed later.
constexpr std::array<std::string_view, 4> kNothing = {"", "None", "null", "Dynamic"};
constexpr double kLargest = 1e6;

double number_of(std::string_view key, std::string_view value) {
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    throw Error(ErrorKind::input, fmt::format("metadata '{}' is '{}', expected a number", key, value.substr(0, 60)), "the file is damaged");
  return plausible_alpha(number, fmt::format("metadata '{}'", key));
}

}  // namespace

double plausible_alpha(double alpha, std::string_view what) {
  if (!std::isfinite(alpha)) throw Error(ErrorKind::input, fmt::format("{} is not a finite number", what), "the file is damaged");
  if (alpha < 0 || alpha > kLargest)
    throw Error(ErrorKind::input, fmt::format("{} is {:g}, expected a number from 0 to {:.0f}", what, alpha, kLargest),
                "the file is damaged");
  return alpha;
}

bool is_same_component(const Component& stated, const Component& component) {
  if (stated.kind != component.kind) return false;
  // A text encoder without a number is the first.
  return stated.kind != ModelKind::text_encoder || std::max(stated.number, 1) == std::max(component.number, 1);
}

FlatAlphas::FlatAlphas(const std::map<std::string, std::string>& metadata) {
  for (const auto& [key, value] : metadata) {
    const std::size_t dot = key.rfind('.');
    const std::string field = dot == std::string::npos ? key : key.substr(dot + 1);
    if (std::find(kKeys.begin(), kKeys.end(), field) == kKeys.end() || std::find(kNothing.begin(), kNothing.end(), value) != kNothing.end())
      continue;
    const LoraAddress address = lora_address(key);
    if (dot != std::string::npos && (address.component.kind == ModelKind::unknown || address.rest != field)) continue;
    stated_.push_back({key, value, dot == std::string::npos ? Component{} : address.component});
  }
}

std::optional<double> FlatAlphas::first(const std::vector<const Stated*>& stated) const {
  std::optional<double> result;
  for (const Stated* each : stated) {
    const double alpha = number_of(each->key, each->value);
    if (result && *result != alpha)
      throw Error(ErrorKind::input,
                  fmt::format("metadata '{}' is {} and '{}' is {}", stated.front()->key, stated.front()->value, each->key, each->value),
                  "the file contradicts itself; correct its metadata");
    result = alpha;
  }
  return result;
}

std::optional<double> FlatAlphas::of(const Component& component) const {
  std::vector<const Stated*> own, general, others;
  for (const Stated& each : stated_) {
    const bool is_own = is_same_component(each.component, component);
    (each.component.kind == ModelKind::unknown ? general : is_own ? own : others).push_back(&each);
  }
  if (!own.empty()) return first(own);
  if (!general.empty()) return first(general);
  // The only component there is, where names do not say more.
  const auto is_only = [&](const Stated* each) { return is_same_component(each->component, others.front()->component); };
  if (component.kind != ModelKind::unknown || !std::all_of(others.begin(), others.end(), is_only)) return std::nullopt;
  return first(others);
}

}  // namespace qmill
