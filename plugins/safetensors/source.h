// Models in one safetensors file, or in several (shards).
#pragma once

#include <qmill/loader.h>

#include <filesystem>
#include <memory>
#include <vector>

namespace safetensors {

// Opens and checks every file. `weight_map`, from an index, says which tensor must be in which of them; null: no index.
// Throws Error(input, io) that names the file.
std::unique_ptr<qmill::TensorSource> open_files(const std::vector<std::filesystem::path>& files,
                                                const std::map<std::string, std::filesystem::path>* weight_map);

// An index: {"weight_map": {tensor: file}}; the files lie beside it.
std::unique_ptr<qmill::TensorSource> open_index(const std::filesystem::path& index);

// A folder: its index when it has one, else all its *.safetensors.
std::unique_ptr<qmill::TensorSource> open_folder(const std::filesystem::path& folder);

bool is_index(const std::filesystem::path& path);

}  // namespace safetensors
