// Small text files, read whole.
#pragma once

#include <filesystem>
#include <string>

namespace qmill {

// Throws Error(io), or Error(input) for a file of more than `max_bytes`.
std::string read_text_file(const std::filesystem::path& file, std::uint64_t max_bytes);

}  // namespace qmill
