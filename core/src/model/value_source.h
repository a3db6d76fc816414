// The tensors of a model as values in memory of the run. What decorates a source (merging LoRAs) is not seen by those who read it.
#pragma once

#include "engine/buffer_pool.h"
#include "engine/task_pool.h"

#include <qmill/loader.h>

#include <memory>

namespace qmill {

class ValueSource {
 public:
  virtual ~ValueSource() = default;

  // In the order of the file, with the types that read() gives.
  virtual const std::vector<TensorInfo>& tensors() const = 0;

  // Tensor number `index`, in memory of the pool. Idle workers help. Throws what the source throws, Error(unsupported) for types that LibTorch
  // lacks.
  virtual at::Tensor read(std::size_t index, BufferPool& buffers, TaskPool& tasks) const = 0;

  // Memory that read() needs, its result included: about.
  virtual std::uint64_t reading_bytes(std::size_t index) const = 0;
};

// Values as they are in the file. Borrows `source`.
std::unique_ptr<ValueSource> plain_values(const TensorSource& source);

// Of all tensors together.
std::uint64_t bytes_of(const TensorSource& source);

// Tensor number `index` as bytes, of any type: U8 [bytes]. Idle workers help to read it. Throws what the source throws.
at::Tensor read_bytes(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks);

// The same with its own type and shape. Throws Error(unsupported) for types that LibTorch lacks.
at::Tensor read_tensor(const TensorSource& source, std::size_t index, BufferPool& buffers, TaskPool& tasks);

}  // namespace qmill
