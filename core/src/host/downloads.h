// A file that a failed download left in place of a model.
#pragma once

#include <filesystem>
#include <string_view>

namespace qmill {

// For a file that no loader takes, or that one refuses for what is in it: some read texts. Throws Error(input) that says what it is: a web
// page, a text of a server, a Git LFS pointer. By the first bytes; a JSON text under the name of one is let through, and so is a folder.
// `refusal`: what the loader says, if one was asked; it is repeated where the file may be a model that is a text.
void refuse_failed_download(const std::filesystem::path& file, std::string_view refusal = {});

}  // namespace qmill
