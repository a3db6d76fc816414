// The quantizers: one class, with one name for each variant.
#pragma once

#include "settings.h"

#include <qmill/quantizer.h>

namespace learned_rounding {

class LearnedQuantizer : public qmill::GridQuantizer {
 public:
  const qmill::QuantizerInfo& info() const override { return info_; }
  // Changes nothing; throws Error(usage) for options that contradict each other.
  void adapt(qmill::StorageWish& wish, const qmill::Options& options) const override;

 protected:
  explicit LearnedQuantizer(Variant variant);

  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override;

 private:
  Variant variant_;
  qmill::QuantizerInfo info_;
};

template <Variant variant>
class QuantizerOf final : public LearnedQuantizer {
 public:
  QuantizerOf() : LearnedQuantizer(variant) {}
};

}  // namespace learned_rounding
