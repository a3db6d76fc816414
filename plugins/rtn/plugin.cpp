// Plain rounding: every value goes to the nearest code.
#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>

namespace rtn {

class RtnQuantizer final : public qmill::GridQuantizer {
 public:
  const qmill::QuantizerInfo& info() const override {
    static const qmill::QuantizerInfo info = {"rtn", {"simple"}, "round to nearest", {}, {}, false, true};
    return info;
  }

 protected:
  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override {
    qmill::Layout as_it_is = layout;  // `weight` is in the stored basis already
    as_it_is.rotation_group = 0;
    return round_to_nearest(weight, grid, as_it_is, context);
  }

  // One pass over the source instead of an F32 copy of it.
  qmill::CodedWeight code_weight(const at::Tensor& weight, qmill::LayerContext& context) const override {
    const qmill::LayerTarget& target = context.target();
    return round_to_nearest(weight, *target.format->grid(), target.layout, context);
  }
};

}  // namespace rtn

QMILL_PLUGIN("rtn", "1.0", QMILL_QUANTIZER("rtn", rtn::RtnQuantizer));
