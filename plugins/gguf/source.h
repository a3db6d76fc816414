// A model in one GGUF file, or in the parts of a split one.
#pragma once

#include <qmill/loader.h>

namespace gguf {

// Any part opens the whole set. Blocks of codes are decoded as they are read. Throws Error(input, unsupported, io) that names the file.
std::unique_ptr<qmill::TensorSource> open_model(const std::filesystem::path& path);

}  // namespace gguf
