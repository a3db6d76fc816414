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

// For the start of a program: standard streams that are closed become /dev/null, and a write that nobody reads or that is too large is an
// error of that write instead of the end of the process.
QMILL_CORE_API void prepare_streams();

// Becomes true when the person interrupts the program (Ctrl-C) or the system asks it to end, by a signal that is not ignored. A second one
// ends the program at once.
QMILL_CORE_API const std::atomic<bool>& watch_interrupts();

enum class Stream { output, error };
QMILL_CORE_API bool is_terminal(Stream stream);

}  // namespace qmill
