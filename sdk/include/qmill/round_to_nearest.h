// Plain rounding: every value goes to the nearest code. Other quantizers are compared with it.
#pragma once

#include <qmill/quantizer.h>

namespace qmill {

class QMILL_API RoundToNearest final : public GridQuantizer {
 public:
  ~RoundToNearest() override;
  const QuantizerInfo& info() const override;

 protected:
  CodedWeight choose_codes(at::Tensor weight, const Grid& grid, const Layout& layout, LayerContext& context) const override;
  // One pass over the source instead of an F32 copy of it.
  CodedWeight code_weight(const at::Tensor& weight, LayerContext& context) const override;
};

// One for all; it lives as long as the process. [any-thread]
QMILL_API const RoundToNearest& plain_rounding();

}  // namespace qmill
