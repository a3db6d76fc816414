// Whether this process shares its conversion with others.
#pragma once

#include <qmill/core/peers.h>

namespace qmill::app {

// The conversion of this process is shared with these, which must outlive it.
void share_run(Peers& peers);

// Null: it is not shared.
Peers* peers();

// Whether this process prints results: one of those that share a run does.
bool reports();

}  // namespace qmill::app
