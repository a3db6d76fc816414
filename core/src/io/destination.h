// Whether a file may be written where it was asked for.
#pragma once

#include <filesystem>
#include <vector>

namespace qmill {

// Throws Error(usage) for a folder.
void require_file_name(const std::filesystem::path& output);

// Throws Error(usage) for a name with the ending of another kind of file, such as .gguf; large and small letters are the same.
void require_safetensors_name(const std::filesystem::path& output);

// Throws Error(usage) for one of `inputs`, and for what exists unless it may be overwritten.
void require_replaceable(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs, bool overwrite);

}  // namespace qmill
