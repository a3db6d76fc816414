// A TestContext that runs tasks on a given number of threads at once.
#pragma once

#include <test_context.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace qmill::testing {

class ThreadedContext : public TestContext {
 public:
  explicit ThreadedContext(int threads, TensorInfo weight = {}, LayerTarget target = {})
      : TestContext(std::move(weight), std::move(target)), threads_(threads) {}

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

 private:
  int threads_;
};

}  // namespace qmill::testing
