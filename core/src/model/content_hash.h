// Whether two tensors hold the same: by 128 bits of their content.
#pragma once

#include "engine/task_pool.h"

#include <qmill/loader.h>

namespace qmill {

// Of type, shape and values of tensor number `index`; read in parts, by all threads. Equal tensors have equal hashes; that others do, too,
// happens once in 2^64 tensors.
std::string content_hash(const TensorSource& source, std::size_t index, TaskPool& tasks);

// Of all that a header says: names, types and shapes of tensors, metadata. Reads no data.
std::string header_hash(const TensorSource& source);

}  // namespace qmill
