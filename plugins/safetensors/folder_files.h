// Which files of a folder without an index are one model.
#pragma once

#include <filesystem>
#include <vector>

namespace safetensors {

// These files in order, when their names say that they belong together: one file, all parts of one set ("-00001-of-00003"), or names that
// differ in the number at their end ("x-1", "x-2"). Throws Error(input) that names the models, or the parts that are missing.
std::vector<std::filesystem::path> one_model(std::vector<std::filesystem::path> files);

}  // namespace safetensors
