// Where plugins are looked for.
#pragma once

#include <qmill/core/host.h>

namespace qmill {

// The folders in search order, those that are unsafe with their problem. Never the current folder, unless it is named.
std::vector<SearchFolder> search_folders(const std::vector<std::filesystem::path>& plugin_dirs);

// Files in a folder that are plugins by their ending, sorted by name.
std::vector<std::filesystem::path> plugin_files(const std::filesystem::path& folder);

// Filters as data, by its ending.
bool is_filter_pack(const std::filesystem::path& file);

// Why a file or folder must not be used: others may change it. Empty: it may.
std::string unsafe_reason(const std::filesystem::path& path);

}  // namespace qmill
