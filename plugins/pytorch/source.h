// A model in one file of torch.save().
#pragma once

#include <qmill/loader.h>

namespace pytorch {

// Throws Error(input, unsupported, io) that names the file and, where it is one's fault, the tensor.
std::unique_ptr<qmill::TensorSource> open_file(const std::filesystem::path& path);

}  // namespace pytorch
