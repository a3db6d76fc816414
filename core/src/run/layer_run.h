// One layer: from its values to its stored tensors, and how good they are.
#pragma once

#include "buffer_pool.h"
#include "task_pool.h"

#include <qmill/core/plan.h>
#include <qmill/numerics/row_kernels.h>

namespace qmill {

struct RunResources {
  TaskPool& tasks;
  BufferPool& buffers;
  const std::atomic<bool>* cancel;
};

struct LayerResult {
  StoredLayer stored;
  std::vector<std::string> notes;
  ErrorSums errors;
  double seconds = 0;
};

// Throws Error that names plugin and tensor; Error(plugin) when the result is not what the plan said.
LayerResult run_layer(const Decision& decision, const at::Tensor& weight, std::int64_t seed, const RunResources& resources);

// Source minus decoded, over rows in fixed groups: the same figures for every number of threads.
ErrorSums measure_errors(const at::Tensor& weight, std::span<const at::Tensor> stored, const Format& format, const Layout& layout,
                         TaskPool& tasks);

}  // namespace qmill
