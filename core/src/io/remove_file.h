// The end of files that nobody wants any more.
#pragma once

#include <filesystem>

namespace qmill {

// A file that stays is told in a warning: it is no reason for a run to fail, or for another message than that of what went wrong.
void remove_file(const std::filesystem::path& file) noexcept;

}  // namespace qmill
