// Tensors that hold data: LibTorch's, with the names and element types of the file.
#pragma once

#include <qmill/tensor_info.h>

#include <ATen/core/Tensor.h>

#include <string>

namespace qmill {

// A tensor as it goes to the file: contiguous, on the CPU, of one of the types below.
struct StoredTensor {
  std::string name;
  at::Tensor data;
};

// Throws Error(unsupported) for F4 and F6, which LibTorch has no element type for.
QMILL_API at::ScalarType scalar_type(DType dtype);

// Throws Error(unsupported) for LibTorch types that no file can hold (quantized types, half complex).
QMILL_API DType dtype_of(const at::Tensor& tensor);

QMILL_API TensorInfo info_of(const StoredTensor& tensor);

}  // namespace qmill
