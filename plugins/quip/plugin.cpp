#include "hadamard_quip_format.h"
#include "quip_quantizer.h"

#include <qmill/plugin.h>

QMILL_PLUGIN("quip", "1.0", QMILL_QUANTIZER("quip", quip::QuipQuantizer), QMILL_FORMAT("hadamard_quip", quip::HadamardQuipFormat));
