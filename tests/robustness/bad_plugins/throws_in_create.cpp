// Its object cannot be made.
#include "quiet_rounding.h"

#include <stdexcept>

class ThrowsInCreate final : public bad::QuietRounding {
 public:
  ThrowsInCreate() : QuietRounding({"bad.throws-in-create", {}, "", {}, {}, false}) { throw std::runtime_error("no licence found"); }
};

QMILL_PLUGIN("throws_in_create", "1.0", QMILL_QUANTIZER("bad.throws-in-create", ThrowsInCreate));
