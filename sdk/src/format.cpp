#include <qmill/format.h>

#include "block_float_format.h"
#include "fp16_format.h"
#include "fp8_format.h"
#include "int8_format.h"
#include "w4a4_format.h"
#include "w4a8_format.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

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

int Grid::nearest(float x) const {
  if (std::isnan(x)) return lowest;
  if (values.empty()) return static_cast<int>(std::clamp(std::nearbyint(x), static_cast<float>(lowest), static_cast<float>(highest)));
  const auto above = std::lower_bound(values.begin(), values.end(), x);
  if (above == values.begin()) return lowest;
  if (above == values.end()) return highest;
  const auto below = above - 1;
  const bool take_below = x - *below <= *above - x;
  return lowest + static_cast<int>((take_below ? below : above) - values.begin());
}

std::span<const Format* const> builtin_formats() {
  static const Int8Format int8;
  static const Fp16Format fp16;
  static const W4a4Format int4;
  static const Fp8Format e4m3(DType::f8_e4m3);
  static const Fp8Format e5m2(DType::f8_e5m2);
  static const Nvfp4Format nvfp4;
  static const Mxfp8Format mxfp8;
  static const W4a8Format w4a8;
  static const std::array<const Format*, 8> formats = {&int8, &fp16, &int4, &e4m3, &e5m2, &nvfp4, &mxfp8, &w4a8};
  return formats;
}

}  // namespace qmill
