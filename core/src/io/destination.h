// Whether a file may be written where it was asked for.
#pragma once

#include <filesystem>
#include <vector>

namespace qmill {

// Throws Error(usage) for a folder.
void require_file_name(const std::filesystem::path& output);

// Throws Error(usage) for a name with the ending of another kind of file, such as .gguf; large and small letters are the same.
void require_safetensors_name(const std::filesystem::path& output);

// The names of the `count` shards of an output.
std::vector<std::filesystem::path> shard_files(const std::filesystem::path& output, std::size_t count);

// "model.safetensors.index.json"
std::filesystem::path index_of(const std::filesystem::path& output);

// Throws Error(usage) for a name without the ending .safetensors, which shards need.
void require_shard_name(const std::filesystem::path& output);

// Throws Error(usage) for one of `inputs`, and for what exists unless it may be overwritten.
void require_replaceable(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs, bool overwrite);

}  // namespace qmill
