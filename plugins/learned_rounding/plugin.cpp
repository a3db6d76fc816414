// Learned rounding: chooses each integer near its value so that an objective of the integers themselves becomes small.
#include "learned_quantizer.h"

#include <qmill/plugin.h>

namespace learned_rounding {

using Original = QuantizerOf<Variant::original>;
using AdamW = QuantizerOf<Variant::adamw>;
using RAdam = QuantizerOf<Variant::radam>;

}  // namespace learned_rounding

QMILL_PLUGIN("learned_rounding", "1.0", QMILL_QUANTIZER("learned_rounding", learned_rounding::Original),
             QMILL_QUANTIZER("adamw", learned_rounding::AdamW), QMILL_QUANTIZER("radam", learned_rounding::RAdam));
