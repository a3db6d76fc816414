// Which tensors of a model are layers.
#pragma once

#include <qmill/tensor_info.h>

namespace qmill {

// A floating matrix named *.weight, or a matrix of a LoRA.
bool is_layer(const TensorInfo& tensor);

}  // namespace qmill
