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

// For the start of a program, not for libraries: it changes the process.
// - Standard streams that are closed become /dev/null: else a file that is opened gets their number, and messages are written into it.
// - A write that nobody reads, or beyond the limit of a file's size, is an error of that write instead of the end of the process.
// - Large blocks of memory go back to the system when they are freed: else the peak grows with the number of layers.
QMILL_CORE_API void prepare_process();

// Becomes true when the person interrupts the program (Ctrl-C) or the system asks it to end, by a signal that is not ignored. A second one
// ends the program at once.
QMILL_CORE_API const std::atomic<bool>& watch_interrupts();

enum class Stream { output, error };
QMILL_CORE_API bool is_terminal(Stream stream);

}  // namespace qmill
