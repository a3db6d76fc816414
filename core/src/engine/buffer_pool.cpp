#include "engine/buffer_pool.h"

#include "io/large_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <new>

namespace qmill {
namespace {

constexpr std::size_t kPart = 4096;
constexpr std::size_t kSmallest = 64 << 10;  // below, the allocator is as good

std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

BufferPool::BufferPool(std::uint64_t capacity) : capacity_(rounded_up(capacity, kLargePage)) {
  if (capacity_ != 0) block_ = allocate_large(capacity_);
  if (block_ == nullptr) capacity_ = 0;  // then every part comes from the system, or fails there
  if (capacity_ != 0) free_.emplace(0, capacity_);
}

BufferPool::~BufferPool() { free_large(block_); }

at::Tensor BufferPool::allocate(std::span<const std::int64_t> shape, DType dtype) {
  const TensorInfo info{"", dtype, {shape.begin(), shape.end()}};
  const auto options = at::TensorOptions().dtype(scalar_type(dtype));
  const auto wanted = static_cast<std::size_t>(info.bytes());
  if (wanted < kSmallest) return at::empty(info.shape, options);
  const std::size_t bytes = rounded_up(wanted, kPart);
  std::byte* memory = take(bytes);
  return at::from_blob(
      memory, info.shape, [pool = shared_from_this(), memory, bytes](void*) { pool->give_back(memory, bytes); }, options);
}

std::byte* BufferPool::take(std::size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    for (auto part = free_.begin(); part != free_.end(); ++part) {
      const auto [offset, size] = *part;
      if (size < bytes) continue;
      free_.erase(part);
      if (size > bytes) free_.emplace(offset + bytes, size - bytes);
      return block_ + offset;
    }
  }
  std::byte* memory = allocate_large(rounded_up(bytes, kLargePage));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void BufferPool::give_back(std::byte* memory, std::size_t bytes) {
  // As integers: pointers into different blocks have no order.
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const auto start = reinterpret_cast<std::uintptr_t>(block_);
  if (address < start || address >= start + capacity_) return free_large(memory);
  const std::lock_guard lock(mutex_);
  auto part = free_.emplace(address - start, bytes).first;
  if (const auto next = std::next(part); next != free_.end() && part->first + part->second == next->first) {
    part->second += next->second;
    free_.erase(next);
  }
  if (part == free_.begin()) return;
  if (const auto before = std::prev(part); before->first + before->second == part->first) {
    before->second += part->second;
    free_.erase(part);
  }
}

}  // namespace qmill
