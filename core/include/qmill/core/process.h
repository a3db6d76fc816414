// What a front end needs from the operating system.
#pragma once

#include <qmill/core/export.h>

#include <atomic>
#include <cstdint>

namespace qmill {

// Largest resident memory of this process so far, in bytes.
QMILL_CORE_API std::uint64_t peak_memory_bytes();

// That the system could still hand out, in bytes; what it lets this process have if that is less.
QMILL_CORE_API std::uint64_t free_memory_bytes();

// Becomes true when the person interrupts the program (Ctrl-C) or the system asks it to end. A second signal ends it at once.
QMILL_CORE_API const std::atomic<bool>& watch_interrupts();

enum class Stream { output, error };
QMILL_CORE_API bool is_terminal(Stream stream);

}  // namespace qmill
