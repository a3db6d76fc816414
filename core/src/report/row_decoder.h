// Rows of a weight as a reader computes them.
#pragma once

#include <qmill/stored_format.h>

#include <functional>

namespace qmill {

// Writes rows [begin, end) as F32 [end - begin, K]. May be called from several threads at once.
using RowDecoder = std::function<void(std::int64_t begin, std::int64_t end, float* out)>;

// Of the tensors of a file; `weight` is what they decode to. The tensors share their memory with the result. A format whose rows
// depend on each other is decoded here, as a whole.
RowDecoder stored_rows(std::vector<at::Tensor> stored, const TensorInfo& weight, const StoredFormat& format, const Layout& layout);

// Of a floating tensor [N,K] or of any shape with rows, contiguous, on the CPU.
RowDecoder plain_rows(const at::Tensor& values);

}  // namespace qmill
