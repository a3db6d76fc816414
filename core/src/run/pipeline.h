// Reader, workers, writer: each tensor passes once, with a bounded number of bytes on the way. The unit of work is a layer, weight and
// bias: the reader reads it, a worker takes it through its steps (run_layer.h), the writer stores what comes of it.
#pragma once

#include "run/work.h"

#include <qmill/core/convert.h>

namespace qmill {

// Publishes the output of `plan`, or leaves it to the rank that leads; `work` says what this process does; hooks.peers: null
// unless several processes share the run. Throws as run_plan() does.
ConvertReport run_pipeline(const TensorSource& source, const Plan& plan, const RunHooks& hooks, Work& work);

}  // namespace qmill
