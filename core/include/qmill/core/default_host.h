// The host that functions use if they are not given one.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

namespace qmill {

// Made at the first call, with the folders of QMILL_PLUGIN_PATH, the user and the installation; lives as long as the process. [any-thread]
QMILL_CORE_API const Host& default_host();

}  // namespace qmill
