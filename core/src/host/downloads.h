// What lies under a model's name when its download failed.
#pragma once

#include <filesystem>

namespace qmill {

// Throws Error(input) that says what it is: a web page, a text of a server, a Git LFS pointer. By the first bytes; JSON files are let
// through.
void refuse_failed_download(const std::filesystem::path& file);

}  // namespace qmill
