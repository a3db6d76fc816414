#include "shared_run.h"

namespace qmill::app {
namespace {

Peers* shared_with = nullptr;

}  // namespace

void share_run(Peers& peers) { shared_with = &peers; }
Peers* peers() { return shared_with; }
bool reports() { return shared_with == nullptr || shared_with->rank() == 0; }

}  // namespace qmill::app
