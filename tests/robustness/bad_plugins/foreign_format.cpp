// Sends its layers to a format that is not its own.
#include "quiet_rounding.h"

class ForeignFormat final : public bad::QuietRounding {
 public:
  ForeignFormat() : QuietRounding({"bad.foreign-format", {}, "", {}, {}, false}) {}

  void adapt(qmill::StorageWish& wish, const qmill::Options&) const override { wish.format = "int4"; }
};

QMILL_PLUGIN("foreign_format", "1.0", QMILL_QUANTIZER("bad.foreign-format", ForeignFormat));
