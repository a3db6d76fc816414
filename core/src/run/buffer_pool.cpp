#include "buffer_pool.h"

#include "../io/large_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <new>

namespace qmill {
namespace {

constexpr std::size_t kSmallest = 1 << 20;  // below, the allocator is as good

std::size_t rounded_up(std::size_t bytes) { return (bytes + kLargePage - 1) / kLargePage * kLargePage; }

}  // namespace

BufferPool::BufferPool(std::uint64_t idle_bytes) : idle_limit_(idle_bytes) {}

BufferPool::~BufferPool() {
  for (const Buffer& buffer : idle_) free_large(buffer.data);
}

at::Tensor BufferPool::allocate(std::span<const std::int64_t> shape, DType dtype) {
  const TensorInfo info{"", dtype, {shape.begin(), shape.end()}};
  const auto options = at::TensorOptions().dtype(scalar_type(dtype));
  if (static_cast<std::size_t>(info.bytes()) < kSmallest) return at::empty(info.shape, options);
  const Buffer buffer = take(rounded_up(static_cast<std::size_t>(info.bytes())));
  return at::from_blob(
      buffer.data, info.shape, [pool = shared_from_this(), buffer](void*) { pool->give_back(buffer); }, options);
}

BufferPool::Buffer BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    auto best = idle_.end();
    for (auto it = idle_.begin(); it != idle_.end(); ++it)
      if (it->capacity >= bytes && it->capacity / 2 <= bytes && (best == idle_.end() || it->capacity < best->capacity)) best = it;
    if (best != idle_.end()) {
      const Buffer buffer = *best;
      idle_.erase(best);
      idle_bytes_ -= buffer.capacity;
      return buffer;
    }
  }
  std::byte* data = allocate_large(bytes);
  if (data == nullptr) throw std::bad_alloc();
  return {data, bytes};
}

void BufferPool::give_back(Buffer buffer) {
  std::vector<Buffer> surplus;
  {
    const std::lock_guard lock(mutex_);
    idle_.push_back(buffer);
    idle_bytes_ += buffer.capacity;
    // The oldest goes first: its size may have gone out of use.
    while (idle_bytes_ > idle_limit_) {
      surplus.push_back(idle_.front());
      idle_bytes_ -= idle_.front().capacity;
      idle_.erase(idle_.begin());
    }
  }
  for (const Buffer& old : surplus) free_large(old.data);
}

}  // namespace qmill
