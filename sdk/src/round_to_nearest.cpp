#include <qmill/round_to_nearest.h>

#include <qmill/numerics/rounding.h>

namespace qmill {

RoundToNearest::~RoundToNearest() = default;

const QuantizerInfo& RoundToNearest::info() const {
  static const QuantizerInfo info = [] {
    QuantizerInfo made;
    made.name = "rtn";
    made.aliases = {"simple"};
    made.summary = "round to nearest";
    made.rounds_to_nearest = true;
    made.cost = 1;
    return made;
  }();
  return info;
}

CodedWeight RoundToNearest::choose_codes(at::Tensor weight, const Grid& grid, const Layout& layout, LayerContext& context) const {
  Layout as_it_is = layout;  // `weight` is in the stored basis already
  as_it_is.rotation_group = 0;
  return round_to_nearest(weight, grid, as_it_is, context);
}

CodedWeight RoundToNearest::code_weight(const at::Tensor& weight, LayerContext& context) const {
  return round_to_nearest(weight, context.target().coded().grid(), context.target().layout, context);
}

const RoundToNearest& plain_rounding() {
  static const RoundToNearest rounding;
  return rounding;
}

}  // namespace qmill
