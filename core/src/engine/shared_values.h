// What layers of one run make for each other: see LayerContext::shared.
#pragma once

#include "engine/task_pool.h"

#include <atomic>
#include <memory>
#include <string>

namespace qmill {

// Keeps the values of the keys that were asked for last. Thread-safe.
class SharedValues {
 public:
  // The value of `key`; make()s it when nobody has. Who asks while another makes it helps with the loops of `tasks` until it is there. What
  // make() throws reaches all who wait, and is not kept. Throws Error(plugin) when make() asks for what it is making.
  std::shared_ptr<const void> get(const std::string& key, const std::function<std::shared_ptr<const void>()>& make, TaskPool& tasks);

 private:
  struct Slot {
    std::string key;
    std::thread::id maker;
    std::atomic<bool> is_done = false;
    std::shared_ptr<const void> value;
    std::exception_ptr failure;
  };

  // The size of a value is not known, their use is: layers that share come one after another, and a quantizer asks for two or three keys
  // per layer.
  static constexpr std::size_t kKept = 4;

  void forget_old();

  std::mutex mutex_;
  std::list<std::shared_ptr<Slot>> slots_;  // the last one asked for first
};

}  // namespace qmill
