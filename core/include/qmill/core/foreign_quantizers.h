// Models that other tools quantized: by the names and types of their tensors.
#pragma once

#include <qmill/core/export.h>
#include <qmill/tensor_info.h>

#include <optional>
#include <string>
#include <vector>

namespace qmill {

struct ForeignQuantizer {
  std::string tool;    // "bitsandbytes (nf4)"
  std::string tensor;  // one that shows it
};

// The tool that stored these tensors, by their names and types; nothing: none that is known here. Formats that qmill reads are not among
// them. [any-thread]
QMILL_CORE_API std::optional<ForeignQuantizer> find_foreign_quantizer(const std::vector<TensorInfo>& tensors);

// Whole numbers, which a weight never is unless it holds codes. Truth values are none. [any-thread]
QMILL_CORE_API bool is_integer(DType dtype);

}  // namespace qmill
