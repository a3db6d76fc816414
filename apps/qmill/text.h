// Numbers and names as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qmill::app {

inline constexpr std::size_t kMaxLines = 5;  // of one kind of remark; the rest is counted

std::string bytes_text(std::uint64_t bytes);                     // "1.07 GB"
std::string decibel_text(const std::optional<double>& decibel);  // "41.25 dB"; "exact" for nothing
std::string percent_text(double fraction);                       // "0.7144 %"
std::string count_text(std::size_t count, const char* noun);     // "1 layer", "3 layers"

// Names come from files: control characters as "\\n" or "\\x1b", so that they neither break lines nor command a terminal.
std::string printable(std::string_view text);

// "merge_lora_scale" -> "merge-lora-scale".
std::string hyphens(std::string name);

// Core names options in backticks, which are flags here: `comfy_quant off` -> --no-comfy-quant, `convrot off` -> --convrot off,
// `calib_samples` -> --calib-samples.
std::string as_flags(std::string_view text);

// To stderr. Where that cannot be written (a full disk, a reader that is gone), the text is lost and the program goes on.
void say(std::string_view text);

// The command has published a file, and what it prints is only about that: it has not failed if stdout cannot be written.
void print_is_optional();
bool is_print_optional();

}  // namespace qmill::app
