// Throws what is not an exception.
#include "quiet_rounding.h"

class ThrowsInt final : public bad::QuietRounding {
 public:
  ThrowsInt() : QuietRounding({"bad.throws-int", {}, "", {}, {}, false}) {}
  qmill::StoredLayer quantize(const at::Tensor&, qmill::LayerContext&) const override { throw 42; }
};

QMILL_PLUGIN("throws_int", "1.0", QMILL_QUANTIZER("bad.throws-int", ThrowsInt));
