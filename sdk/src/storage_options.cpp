#include <qmill/storage_options.h>

#include <qmill/error.h>

#include <fmt/format.h>

#include <charconv>

namespace qmill {
namespace {

constexpr std::int64_t kLargestRotation = 65536;

bool is_power_of_4(std::int64_t n) { return n >= 4 && (n & (n - 1)) == 0 && (n & 0x5555555555555555) != 0; }

}  // namespace

std::string_view scaling_name(Scaling scaling) {
  switch (scaling) {
    case Scaling::row:
      return "row";
    case Scaling::tensor:
      return "tensor";
    case Scaling::block:
      return "block";
    case Scaling::axis:
      return "axis";
  }
  return "row";
}

std::optional<Scaling> parse_scaling(std::string_view name) {
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis})
    if (scaling_name(scaling) == name) return scaling;
  return std::nullopt;
}

std::string rotation_text(const Rotation& rotation) {
  switch (rotation.mode) {
    case Rotation::Mode::automatic:
      return "auto";
    case Rotation::Mode::any:
      return "any";
    case Rotation::Mode::off:
      return "off";
    case Rotation::Mode::fixed:
      return std::to_string(rotation.group);
  }
  return "auto";
}

Rotation parse_rotation(std::string_view text) {
  if (text == "auto") return {};
  if (text == "any") return {Rotation::Mode::any};
  if (text == "off") return {Rotation::Mode::off};
  std::int64_t group = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), group);
  if (error != std::errc() || end != text.data() + text.size() || !is_power_of_4(group) || group > kLargestRotation)
    throw Error(ErrorKind::usage,
                fmt::format("rotation '{}' is not allowed; allowed: auto, any, off, or a power of 4 from 4 to {}", text, kLargestRotation));
  return {Rotation::Mode::fixed, group};
}

}  // namespace qmill
