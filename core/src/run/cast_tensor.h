// Tensors that are stored without being quantized, in the type that the plan says.
#pragma once

#include "engine/buffer_pool.h"

#include <qmill/core/plan.h>

namespace qmill {

// `values` as the only output of `decision`. Throws Error(numeric) that names the tensor when values are beyond the range of its type, unless
// options.written clamps them.
StoredTensor cast_tensor(const Decision& decision, const at::Tensor& values, const ConvertOptions& options, BufferPool& buffers);

}  // namespace qmill
