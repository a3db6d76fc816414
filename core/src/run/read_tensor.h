// Whole tensors of a source, into memory of the pool.
#pragma once

#include "buffer_pool.h"
#include "task_pool.h"

#include <qmill/loader.h>

namespace qmill {

// Tensor number `index` as bytes, of any type: U8 [bytes]. Idle workers help to read it. Throws what the source throws.
at::Tensor read_bytes(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks);

// The same with its own type and shape. Throws Error(unsupported) for types that LibTorch lacks.
at::Tensor read_tensor(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks);

}  // namespace qmill
