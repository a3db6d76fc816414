// Offers one name and makes an object with another.
#include "quiet_rounding.h"

class OtherName final : public bad::QuietRounding {
 public:
  OtherName() : QuietRounding({"bad.second", {}, "", {}, {}, false}) {}
};

QMILL_PLUGIN("other_name", "1.0", QMILL_QUANTIZER("bad.first", OtherName));
