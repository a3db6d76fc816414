// A working plugin with the name of another one.
#include "quiet_rounding.h"

class SameName final : public bad::QuietRounding {
 public:
  SameName() : QuietRounding({"rtn", {}, "the other rtn", {}, {}, false}) {}
};

QMILL_PLUGIN("rtn", "7.0", QMILL_QUANTIZER("rtn", SameName));
