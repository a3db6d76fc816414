// A ModelFilter knows the tensors of one kind of model: which to keep in high precision, which to drop.
// Most filters are data: see pattern_filter.h.
#pragma once

#include <qmill/tensor_info.h>

#include <span>

namespace qmill {

enum class Treatment { quantize, keep, remove };

struct FilterVerdict {
  Treatment treatment = Treatment::quantize;
  std::string reason;  // the pattern that decided; empty for quantize
};

struct FilterInfo {
  std::string name;      // also its flag: --t5xxl
  std::string category;  // text, image, video
  std::string summary;
};

// Immutable after construction; every function may be called from any thread.
class QMILL_API ModelFilter {
 public:
  virtual ~ModelFilter();
  virtual const FilterInfo& info() const = 0;
  virtual FilterVerdict classify(const TensorInfo& tensor) const = 0;
  // How surely these tensors are this filter's model: 0 (no) to 1 (its fingerprint is complete).
  virtual double detect(std::span<const TensorInfo> tensors) const = 0;
};

}  // namespace qmill
