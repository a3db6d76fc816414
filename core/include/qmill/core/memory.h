// How much of a model may be in memory at once. None of this changes a byte of the output.
#pragma once

#include <qmill/core/export.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

enum class StreamingMode {
  off,         // everything is read before the first layer is worked on
  minimal,     // 512 MiB of weights and results at once, or half of the free memory if that is less
  balanced,    // 128 MiB, or a quarter: more does not make it faster
  aggressive,  // 32 MiB, or a sixteenth
  automatic,   // minimal for a model of up to a quarter of the free memory, balanced up to all of it, aggressive beyond
};

// Throws Error(usage) that lists what is allowed: off, minimal, balanced, aggressive, auto.
QMILL_CORE_API StreamingMode parse_streaming_mode(std::string_view name);
QMILL_CORE_API std::string_view streaming_mode_name(StreamingMode mode);

// Values of a matrix above which a step of a quantizer is done in pieces (Step in qmill/layer_context.h); absent: never.
struct StreamingThresholds {
  std::optional<std::int64_t> hadamard;
  std::optional<std::int64_t> hessian;
  std::optional<std::int64_t> ldlq;
  std::optional<std::int64_t> ortho;
};

// From the names "hadamard", "hessian", "ldlq", "ortho". Throws Error(usage) for another name, or a value below 1.
QMILL_CORE_API StreamingThresholds streaming_thresholds(const std::map<std::string, std::optional<std::int64_t>>& by_name);

struct MemoryOptions {
  std::optional<StreamingMode> mode;  // absent: what STREAMING_AGGRESSIVENESS says, else balanced
  StreamingThresholds thresholds;
  bool low_memory = false;                       // one layer at a time
  bool no_limits = false;                        // no budget
  std::optional<std::uint64_t> bytes_in_flight;  // instead of what the mode says
};

// What a run makes of these options.
struct MemoryPolicy {
  StreamingMode mode = StreamingMode::balanced;  // never automatic
  std::uint64_t bytes_in_flight = 0;             // weights and results in memory at once; a larger layer goes alone
  std::string summary;                           // "balanced, 128 MiB in flight"
};

// `model_bytes`: of the source. `free_bytes`: free_memory_bytes() of process.h. Throws Error(usage) for options that contradict each other,
// and for a variable whose value is not allowed.
QMILL_CORE_API MemoryPolicy memory_policy(const MemoryOptions& options, std::uint64_t model_bytes, std::uint64_t free_bytes);

}  // namespace qmill
