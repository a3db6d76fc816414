// Environment variables that give the defaults of options. An option beats its variable.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/memory.h>

namespace qmill {

// Compute type of Hadamard transforms on a GPU. Transforms on the CPU are F32.
struct MixedHadamard {
  enum class Use { automatic, on, off };
  Use use = Use::automatic;  // ENABLE_MIXED_HADAMARD: auto, 1, 0
  bool is_half = false;      // MIXED_HADAMARD_DTYPE: bfloat16, float16
};

struct Environment {
  StreamingMode streaming = StreamingMode::balanced;  // STREAMING_AGGRESSIVENESS: conservative (minimal), balanced, aggressive
  MixedHadamard mixed_hadamard;
  std::vector<std::string> remarks;  // variables that are set but change nothing here, and why
};

// Reads the variables now. Throws Error(usage) that names the variable, its value and what is allowed.
QMILL_CORE_API Environment read_environment();

}  // namespace qmill
