// A model in files of torch.save().
#pragma once

#include <qmill/loader.h>

namespace pytorch {

// By its name: "pytorch_model.bin.index.json".
bool is_index(const std::filesystem::path& path);

// Of an index, or of a file that is one or a part of a model. Throws Error(input, unsupported, io) that names the file and, where it is
// one's fault, the tensor.
std::unique_ptr<qmill::TensorSource> open_model(const std::filesystem::path& path);

}  // namespace pytorch
