// Which programs read the output of a plan, and since which release.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// What mainline ComfyUI makes of one layer, by its format alone: verify.h has all of its rules.
struct ReaderNeed {
  bool loads = false;
  std::string since;  // first release that loads it; empty: any
};

QMILL_CORE_API ReaderNeed reader_of(const Decision& decision);

// Of all layers that a plan quantizes, in one line: "ComfyUI 0.28.0 or newer", or which layout is not loaded and, in backticks, which option
// helps. Empty: there is nothing to say.
QMILL_CORE_API std::string readers_text(const Plan& plan);

}  // namespace qmill
