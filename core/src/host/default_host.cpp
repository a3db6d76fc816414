#include <qmill/core/default_host.h>

namespace qmill {

const Host& default_host() {
  static const Host host;
  return host;
}

}  // namespace qmill
