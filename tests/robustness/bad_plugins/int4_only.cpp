// Writes one format, which not every layer can have.
#include "quiet_rounding.h"

class Int4Only final : public bad::QuietRounding {
 public:
  Int4Only() : QuietRounding({"bad.int4-only", {}, "", {option()}, {"int4"}, false}) {}

 private:
  static qmill::OptionSpec option() {
    qmill::OptionSpec spec;
    spec.name = "speed";
    spec.initial = std::string("slow");
    spec.choices = {"slow", "fast"};
    return spec;
  }
};

QMILL_PLUGIN("int4_only", "1.0", QMILL_QUANTIZER("bad.int4-only", Int4Only));
