// Which programs read the output of a plan, and since which release.
#pragma once

#include <qmill/core/plan.h>

namespace qmill {

// What mainline ComfyUI makes of one layer, by its format alone: verify.h has all of its rules. All functions here: [any-thread].
struct ReaderNeed {
  bool loads = false;
  std::string since;  // first release that loads it; empty: any
};

QMILL_CORE_API ReaderNeed reader_of(const Decision& decision);

// What mainline ComfyUI makes of all layers that a plan quantizes.
struct PlanReader {
  std::optional<bool> loads;  // nothing: not known, as the model or a part of it is not
  std::string since;          // first release that knows all formats; empty: any
  std::string because;        // why not, or why that is not known; options in `backticks`
};

QMILL_CORE_API PlanReader reader_of(const Plan& plan);

// The same in one line: "ComfyUI 0.28.0 or newer". Empty: there is nothing to say.
QMILL_CORE_API std::string readers_text(const Plan& plan);

}  // namespace qmill
