// A quantizer that does its work, for plugins that are bad in other ways.
#pragma once

#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>

namespace bad {

class QuietRounding : public qmill::GridQuantizer {
 public:
  explicit QuietRounding(qmill::QuantizerInfo info) : info_(std::move(info)) {}
  const qmill::QuantizerInfo& info() const override { return info_; }

 protected:
  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override {
    qmill::Layout as_it_is = layout;
    as_it_is.rotation_group = 0;
    return round_to_nearest(weight, grid, as_it_is, context);
  }

 private:
  qmill::QuantizerInfo info_;
};

}  // namespace bad
