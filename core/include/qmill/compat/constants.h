// Constants and type names of the API.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/default_host.h>

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

inline constexpr at::ScalarType TARGET_INT8_DTYPE = at::kChar;
inline constexpr at::ScalarType COMPUTE_DTYPE = at::kFloat;
inline constexpr at::ScalarType SCALE_DTYPE = at::kFloat;
inline constexpr int INT8_SYMMETRIC_MAX = 127;  // codes are -127 to 127

using WeightTensor = at::Tensor;   // floating [out_features, in_features]
using ScaleTensor = at::Tensor;    // F32: [out_features, 1], [out_features / block, in_features / block], or a scalar
using HessianMatrix = at::Tensor;  // floating [in_features, in_features]: X^T X of inputs X [rows, in_features], of any scale
using FilterFlags = std::map<std::string, bool>;  // filter -> whether it is used

// The model filters that the default host finds: which tensors each keeps, and removes. [any-thread]
class QMILL_CORE_API ModelFilters {
 public:
  std::vector<std::string> names() const;
  bool contains(std::string_view name) const;  // '-' and '_' are the same
  // Throws Error(usage) with the nearest known name.
  const ModelFilter& at(std::string_view name) const { return default_host().filter(name); }
};
inline constexpr ModelFilters MODEL_FILTERS;

}  // namespace qmill
