#include "text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace qmill::app {

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  int unit = 0;
  while (value >= 999.5 && unit < 3) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string decibel_text(const std::optional<double>& decibel) { return decibel ? fmt::format("{:.2f} dB", *decibel) : "exact"; }

std::string percent_text(double fraction) { return fmt::format("{:.4g} %", 100 * fraction); }

std::string count_text(std::size_t count, const char* noun) { return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s"); }

std::string printable(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\n')
      result += "\\n";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      result += c;
  }
  return result;
}

std::string hyphens(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

namespace {

// Options with the value off that are no switches.
constexpr std::string_view kModes[] = {"convrot", "streaming_mode", "scale_search", "bf16_compute", "quality"};

// The flag that says `option`; empty: it is no option.
std::string flag_text(std::string_view option) {
  const std::size_t space = option.find(' ');
  const std::string_view name = option.substr(0, space);
  const auto is_of_name = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (name.empty() || !std::all_of(name.begin(), name.end(), is_of_name)) return {};
  const std::string flag = hyphens(std::string(name));
  if (space == std::string_view::npos) return "--" + flag;
  const std::string_view value = option.substr(space + 1);
  if (std::find(std::begin(kModes), std::end(kModes), name) == std::end(kModes)) {
    if (value == "off") return "--no-" + flag;
    if (value == "on") return "--" + flag;
  }
  return fmt::format("--{} {}", flag, value);
}

}  // namespace

std::string as_flags(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t open = text.find('`');
    const std::size_t close = open == std::string_view::npos ? open : text.find('`', open + 1);
    if (close == std::string_view::npos) break;
    const std::string flag = flag_text(text.substr(open + 1, close - open - 1));
    result += text.substr(0, open);
    result += flag.empty() ? std::string(text.substr(open, close + 1 - open)) : flag;
    text.remove_prefix(close + 1);
  }
  return result + std::string(text);
}

void say(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

namespace {
bool print_optional = false;
}  // namespace

void print_is_optional() { print_optional = true; }
bool is_print_optional() { return print_optional; }

}  // namespace qmill::app
