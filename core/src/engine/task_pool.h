// Threads that run jobs (layers) and help each other inside them. Nobody spins: with a busy neighbour a spinning thread waits for
// a processor that it occupies itself.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

namespace qmill {

class TaskPool {
 public:
  explicit TaskPool(int threads);  // 0: one per processor
  ~TaskPool();                     // finishes the jobs that were submitted

  int threads() const { return static_cast<int>(workers_.size()); }

  // A job must not throw.
  void submit(std::function<void()> job);

  // body(0..tasks-1), each once, by the caller and whichever workers are idle; rethrows the first exception. May be
  // called from a job, and from several threads at once.
  void parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& body);

  // Returns once is_done() is true, and until then helps with the loops of others. Takes no job: it might wait for the very thing that
  // this thread has to go on with. is_done() must not throw and not call the pool; who makes it true calls wake_helpers() afterwards.
  void help_until(const std::function<bool()>& is_done);
  void wake_helpers();

 private:
  struct Loop {
    const std::function<void(std::int64_t)>* body;
    std::int64_t tasks;
    std::int64_t next = 0;  // first task that nobody has taken
    std::int64_t running = 0;
    std::exception_ptr failure;
  };

  void work();
  // Takes tasks of `loop` until none is left, or is_done() if it is given. Called and returns with `lock` held.
  void help(Loop& loop, std::unique_lock<std::mutex>& lock, const std::function<bool()>* is_done = nullptr);
  Loop* open_loop();

  std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::condition_variable task_finished_;
  std::condition_variable help_wanted_;  // not work_arrived_: a job would wake a helper instead of a worker
  std::deque<std::function<void()>> jobs_;
  std::list<Loop*> loops_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace qmill
