// A text encoder under the names that ComfyUI looks for.
#pragma once

#include <qmill/loader.h>

#include <memory>

namespace qmill {

// The model with its tensors renamed as renaming_of() says, and their rows in the order of the original. Values, shapes and metadata are
// those of `source`; its remarks say whose names they were. Throws Error(input, unsupported) like renaming_of(), and for a model that is
// quantized: its markers name layers, too.
std::unique_ptr<TensorSource> renamed(std::unique_ptr<TensorSource> source);

}  // namespace qmill
