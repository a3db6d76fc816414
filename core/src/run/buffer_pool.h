// Memory for weights and results, used again from layer to layer: faulting in fresh pages costs more than rounding.
#pragma once

#include <qmill/tensor.h>

#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace qmill {

// Thread-safe. Tensors keep the pool alive and give their memory back when they die.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  explicit BufferPool(std::uint64_t idle_bytes);  // memory that may lie idle
  ~BufferPool();

  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype);

 private:
  struct Buffer {
    std::byte* data = nullptr;
    std::size_t capacity = 0;
  };

  Buffer take(std::size_t bytes);
  void give_back(Buffer buffer);

  const std::uint64_t idle_limit_;
  std::mutex mutex_;
  std::vector<Buffer> idle_;
  std::uint64_t idle_bytes_ = 0;
};

}  // namespace qmill
