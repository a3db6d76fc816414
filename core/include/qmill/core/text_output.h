// Writes small text files, completely or not at all.
#pragma once

#include <qmill/core/export.h>

#include <filesystem>
#include <string_view>
#include <vector>

namespace qmill {

// What publish_text checks before it writes.
QMILL_CORE_API void check_text_output(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs, bool overwrite);

// Throws Error(usage) when `output` is one of `inputs` or a folder, or exists and may not be overwritten; Error(io).
QMILL_CORE_API void publish_text(const std::filesystem::path& output, std::string_view text, const std::vector<std::filesystem::path>& inputs,
                  bool overwrite);

}  // namespace qmill
