// The names of the files that an output in several files consists of.
#pragma once

#include <filesystem>
#include <vector>

namespace qmill {

// Of its `count` shards.
std::vector<std::filesystem::path> shard_files(const std::filesystem::path& output, std::size_t count);

// "model.safetensors.index.json"
std::filesystem::path index_of(const std::filesystem::path& output);

// Throws Error(usage) for a name without the ending .safetensors, and for that of a shard.
void require_shard_name(const std::filesystem::path& output);

}  // namespace qmill
