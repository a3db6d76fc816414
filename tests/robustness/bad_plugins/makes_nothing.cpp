// Its create function returns null.
#include <qmill/plugin.h>

void* make_nothing() { return nullptr; }

QMILL_PLUGIN("makes_nothing", "1.0", QMILL_OFFER(qmill::OfferKind::quantizer, "bad.makes-nothing", make_nothing));
