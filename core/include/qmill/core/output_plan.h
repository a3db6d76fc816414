// The exact layout of a safetensors file before it is written: order, offsets and header.
#pragma once

#include <qmill/core/export.h>
#include <qmill/tensor_info.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qmill {

// Where a tensor of the output lies.
struct PlacedTensor {
  TensorInfo info;
  std::uint64_t offset = 0;  // in the file
};

struct OutputPlan {
  std::string header;                           // the first bytes of the file: length and JSON
  std::map<std::string, PlacedTensor> tensors;  // by name
  std::uint64_t file_bytes = 0;
};

// Tensors by descending element size, then name, so that each is aligned. Throws Error(input) when a name is there twice, or the header is
// larger than readers take.
QMILL_CORE_API OutputPlan plan_output(std::vector<TensorInfo> tensors, const std::map<std::string, std::string>& metadata);

}  // namespace qmill
