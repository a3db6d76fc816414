// A model in one GGUF file.
#pragma once

#include <qmill/loader.h>

namespace gguf {

// Q8_0 tensors are decoded as they are read. Throws Error(input, unsupported, io) that names the file.
std::unique_ptr<qmill::TensorSource> open_file(const std::filesystem::path& path);

}  // namespace gguf
