// Models in one safetensors file, or in several (shards).
#pragma once

#include <qmill/loader.h>

#include <filesystem>
#include <memory>
#include <vector>

namespace safetensors {

// A file. Where its name says that it is a part ("-00001-of-00003"), the whole model: by its index where there is one, else by the names.
// Throws Error(input, io) that names the file.
std::unique_ptr<qmill::TensorSource> open_file(const std::filesystem::path& file);

// An index: {"weight_map": {tensor: file}}; the files lie beside it.
std::unique_ptr<qmill::TensorSource> open_index(const std::filesystem::path& index);

// A folder: its index when it has one, else its *.safetensors, which must be of one model (folder_files.h).
std::unique_ptr<qmill::TensorSource> open_folder(const std::filesystem::path& folder);

bool is_index(const std::filesystem::path& path);

}  // namespace safetensors
