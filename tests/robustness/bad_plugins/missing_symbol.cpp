// Uses a function that no library has.
#include "quiet_rounding.h"

extern "C" void qmill_test_function_that_no_library_has();

class MissingSymbol final : public bad::QuietRounding {
 public:
  MissingSymbol() : QuietRounding({"bad.missing-symbol", {}, "", {}, {}, false}) {}

  qmill::StoredLayer quantize(const at::Tensor& weight, qmill::LayerContext& context) const override {
    qmill_test_function_that_no_library_has();
    return QuietRounding::quantize(weight, context);
  }
};

QMILL_PLUGIN("missing_symbol", "1.0", QMILL_QUANTIZER("bad.missing-symbol", MissingSymbol));
