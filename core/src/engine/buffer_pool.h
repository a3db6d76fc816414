// Memory for weights and results, used again from layer to layer: faulting in fresh pages costs more than rounding.
#pragma once

#include <qmill/tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <span>

namespace qmill {

// One block of `capacity` bytes, handed out in parts, lowest address first, so that what was touched once is touched again. What does
// not fit comes from the system. Thread-safe. Tensors keep the pool alive and give their memory back when they die.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  explicit BufferPool(std::uint64_t capacity);  // reserved now, used as it is needed
  ~BufferPool();

  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype);

 private:
  std::byte* take(std::size_t bytes);
  void give_back(std::byte* memory, std::size_t bytes);

  std::byte* block_ = nullptr;
  std::size_t capacity_ = 0;
  std::mutex mutex_;
  std::map<std::size_t, std::size_t> free_;  // offset in the block -> bytes; neighbours are joined
};

}  // namespace qmill
