// A ModelFilter knows the tensors of one kind of model: which to keep in high precision, which to drop.
// Most filters are data: see pattern_filter.h, or docs/filters.md for those that need no compiler.
#pragma once

#include <qmill/fingerprint.h>
#include <qmill/tensor_info.h>

#include <span>

namespace qmill {

enum class Treatment { quantize, keep, remove };

struct FilterVerdict {
  Treatment treatment = Treatment::quantize;
  std::string reason;  // the pattern that decided; empty for quantize
};

struct FilterInfo {
  std::string name;      // also its flag: --t5xxl. "auto" is reserved
  std::string category;  // text, image, video
  std::string summary;
};

// Immutable after construction; every function may be called from any thread.
class QMILL_API ModelFilter {
 public:
  virtual ~ModelFilter();
  virtual const FilterInfo& info() const = 0;
  virtual FilterVerdict classify(const TensorInfo& tensor) const = 0;
  // The architectures that this filter is for; none: it is used when it is asked for by name. They live as long as the filter.
  virtual std::span<const Fingerprint> fingerprints() const = 0;
};

}  // namespace qmill
