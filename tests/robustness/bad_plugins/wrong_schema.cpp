// The default of its option is not one of the option's choices.
#include "quiet_rounding.h"

class WrongSchema final : public bad::QuietRounding {
 public:
  WrongSchema() : QuietRounding({"bad.wrong-schema", {}, "", {option()}, {}, false}) {}

 private:
  static qmill::OptionSpec option() {
    qmill::OptionSpec spec;
    spec.name = "speed";
    spec.initial = std::string("medium");
    spec.choices = {"slow", "fast"};
    return spec;
  }
};

QMILL_PLUGIN("wrong_schema", "1.0", QMILL_QUANTIZER("bad.wrong-schema", WrongSchema));
