// A LayerContext that runs tasks on a given number of threads at once.
#pragma once

#include <test_context.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace qmill::testing {

class ThreadedContext final : public LayerContext {
 public:
  explicit ThreadedContext(int threads, TensorInfo weight = {}, LayerTarget target = {})
      : threads_(threads), rest_(std::move(weight), std::move(target)) {}

  const TensorInfo& weight() const override { return rest_.weight(); }
  const LayerTarget& target() const override { return rest_.target(); }
  const LayerCalibration* calibration() const override { return calibrated; }
  std::uint64_t seed() const override { return rest_.seed(); }
  at::Tensor allocate(std::span<const std::int64_t> shape, DType dtype) override { return rest_.allocate(shape, dtype); }
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) override {
    std::atomic<std::int64_t> next = 0;
    std::exception_ptr failure;
    std::mutex mutex;
    const auto work = [&] {
      for (std::int64_t task = next++; task < tasks; task = next++) try {
          body(task);
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads_; ++i) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
  }
  std::shared_ptr<const void> shared(const std::string& key, const std::function<std::shared_ptr<const void>()>& make) override {
    return rest_.shared(key, make);
  }
  void note(std::string text) override { rest_.note(std::move(text)); }
  void check_cancelled() const override { rest_.check_cancelled(); }

  const LayerCalibration* calibrated = nullptr;

 private:
  int threads_;
  TestContext rest_;
};

}  // namespace qmill::testing
