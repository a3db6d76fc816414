#include "engine/task_pool.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <system_error>

namespace qmill {

TaskPool::TaskPool(int threads) {
  const int count = threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  workers_.reserve(static_cast<std::size_t>(count));
  try {
    for (int i = 0; i < count; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {  // the system has no more threads: with fewer it takes longer
    if (workers_.empty()) throw;
  }
}

TaskPool::~TaskPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_arrived_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void TaskPool::submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  work_arrived_.notify_one();
}

TaskPool::Loop* TaskPool::open_loop() {
  for (Loop* loop : loops_)
    if (loop->next < loop->tasks) return loop;
  return nullptr;
}

void TaskPool::help(Loop& loop, std::unique_lock<std::mutex>& lock, const std::function<bool()>* is_done) {
  while (loop.next < loop.tasks && (is_done == nullptr || !(*is_done)())) {
    const std::int64_t task = loop.next++;
    ++loop.running;
    lock.unlock();
    std::exception_ptr failure;
    try {
      (*loop.body)(task);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    --loop.running;
    if (failure) {
      if (!loop.failure) loop.failure = failure;
      loop.next = loop.tasks;
    }
  }
  task_finished_.notify_all();
}

void TaskPool::work() {
  at::set_num_threads(1);  // LibTorch's own pool, one per calling thread, would compete with this one
  std::unique_lock lock(mutex_);
  for (;;) {
    work_arrived_.wait(lock, [&] { return stopping_ || !jobs_.empty() || open_loop() != nullptr; });
    // Layers that are under way come first: they hold memory.
    if (Loop* loop = open_loop()) {
      help(*loop, lock);
    } else if (!jobs_.empty()) {
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    } else if (stopping_) {
      return;
    }
  }
}

void TaskPool::parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body) {
  if (tasks <= 1 || threads() == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  Loop loop{&body, tasks, 0, 0, nullptr};
  std::unique_lock lock(mutex_);
  loops_.push_back(&loop);
  work_arrived_.notify_all();
  help_wanted_.notify_all();
  help(loop, lock);
  task_finished_.wait(lock, [&] { return loop.running == 0; });
  loops_.remove(&loop);
  lock.unlock();
  if (loop.failure) std::rethrow_exception(loop.failure);
}

void TaskPool::help_until(const std::function<bool()>& is_done) {
  std::unique_lock lock(mutex_);
  while (!is_done()) {
    if (Loop* loop = open_loop())
      help(*loop, lock, &is_done);
    else
      help_wanted_.wait(lock, [&] { return is_done() || open_loop() != nullptr; });
  }
}

void TaskPool::wake_helpers() {
  { const std::lock_guard lock(mutex_); }  // a helper that has just found nothing is waiting now
  help_wanted_.notify_all();
}

}  // namespace qmill
