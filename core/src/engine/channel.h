// What the stages of the pipeline hand to each other, and how much of it may be on the way.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>

namespace qmill {

// First in, first out, between threads.
template <class Item>
class Channel {
 public:
  void push(Item item) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
    }
    changed_.notify_one();
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Nothing once it is closed and empty.
  std::optional<Item> pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  bool closed_ = false;
};

// Bytes on the way. What alone exceeds the limit goes when nothing else is on the way.
class ByteBudget {
 public:
  explicit ByteBudget(std::uint64_t limit) : limit_(limit) {}

  void acquire(std::uint64_t bytes) {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [&] { return used_ == 0 || used_ + bytes <= limit_; });
    used_ += bytes;
  }

  void release(std::uint64_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      used_ -= bytes;
    }
    released_.notify_all();
  }

 private:
  const std::uint64_t limit_;
  std::uint64_t used_ = 0;
  std::mutex mutex_;
  std::condition_variable released_;
};

// The first thing that went wrong in any stage.
class Failure {
 public:
  void set(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
  }
  bool happened() const {
    const std::lock_guard lock(mutex_);
    return failure_ != nullptr;
  }
  void rethrow() const {
    std::unique_lock lock(mutex_);
    if (const std::exception_ptr failure = failure_) {
      lock.unlock();
      std::rethrow_exception(failure);
    }
  }

 private:
  mutable std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace qmill
