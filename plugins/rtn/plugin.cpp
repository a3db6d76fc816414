// Plain rounding, which is the SDK's own, as a plugin: it may be replaced like any other.
#include <qmill/plugin.h>
#include <qmill/round_to_nearest.h>

QMILL_PLUGIN("rtn", "1.0", QMILL_QUANTIZER("rtn", qmill::RoundToNearest));
