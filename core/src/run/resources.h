// What every layer of a run works with.
#pragma once

#include "buffer_pool.h"
#include "task_pool.h"

#include <qmill/core/memory.h>

#include <atomic>

namespace qmill {

class Calibration;
class SharedValues;

struct RunResources {
  TaskPool& tasks;
  BufferPool& buffers;
  const std::atomic<bool>* cancel;
  const Calibration* calibration = nullptr;  // null: the run has none
  SharedValues* shared = nullptr;            // null: every layer makes its own
  StreamingThresholds thresholds = {};
};

}  // namespace qmill
