// Names of outputs that nobody named.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace qmill {

// <stem>_<suffix>.safetensors in the folder of the input, which may be a file of any kind, an index or a folder.
std::filesystem::path output_beside(const std::filesystem::path& input, std::string_view suffix);

// The name of a model without its ending: "model.safetensors.index.json" is "model", the folder "flux.1-dev/" is "flux.1-dev".
std::string model_stem(const std::filesystem::path& model);

}  // namespace qmill
