// The plugins of this build.
#pragma once

#include <qmill/core/host.h>

namespace qmill::testing {

inline const Host& host() {
  static const Host host({QMILL_TEST_PLUGINS});
  return host;
}

}  // namespace qmill::testing
