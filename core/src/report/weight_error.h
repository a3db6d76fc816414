// How far a stored weight is from its source, value by value.
#pragma once

#include "../run/task_pool.h"
#include "row_decoder.h"

#include <qmill/numerics/row_kernels.h>

namespace qmill {

// `weight` minus decoded, over rows in fixed groups: the same figures for every number of threads.
ErrorSums measure_errors(const at::Tensor& weight, const RowDecoder& decoded, TaskPool& tasks);

}  // namespace qmill
