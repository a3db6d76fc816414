// What every layer of a run works with.
#pragma once

#include "engine/buffer_pool.h"
#include "engine/task_pool.h"

#include <qmill/core/memory.h>

#include <atomic>

namespace qmill {

class SharedValues;

struct RunResources {
  TaskPool& tasks;
  BufferPool& buffers;
  const std::atomic<bool>* cancel;
  SharedValues* shared = nullptr;            // null: every layer makes its own
  StreamingThresholds thresholds = {};
};

}  // namespace qmill
