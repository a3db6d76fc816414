// Names of outputs that nobody named.
#pragma once

#include <filesystem>
#include <string_view>

namespace qmill {

// <stem>_<suffix>.safetensors in the folder of the input, which may be a file of any kind, an index or a folder.
std::filesystem::path output_beside(std::filesystem::path input, std::string_view suffix);

}  // namespace qmill
