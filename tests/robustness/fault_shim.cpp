#include "fault_shim.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace qmill::testing {
namespace {

constexpr std::size_t kCallCount = std::size(kCalls);
constexpr std::size_t kMaxHandles = 4096;

std::atomic<bool> is_armed = false;
std::string watched_folder;  // with a slash at the end; written while nothing is armed
std::vector<Fault> wanted;
std::array<std::atomic<std::uint64_t>, kCallCount> counts;
std::array<std::atomic<bool>, kMaxHandles> is_watched;  // by file descriptor: it is of a file below the folder

bool watches(const char* path) {
  return is_armed && path != nullptr && std::string_view(path).starts_with(watched_folder);
}

bool watches(int handle) { return is_armed && handle >= 0 && static_cast<std::size_t>(handle) < kMaxHandles && is_watched[handle]; }

void note_handle(int handle, bool watched) {
  if (handle >= 0 && static_cast<std::size_t>(handle) < kMaxHandles) is_watched[handle] = watched;
}

// The fault of this call of the kind, if it has one.
const Fault* count(Call call) {
  const std::uint64_t number = ++counts[static_cast<std::size_t>(call)];
  for (const Fault& fault : wanted) {
    if (fault.call == call && (number == fault.number || (fault.lasts && number > fault.number))) return &fault;
  }
  return nullptr;
}

// Whether the call fails now, with errno set.
bool fails(Call call) {
  const Fault* fault = count(call);
  if (fault != nullptr) errno = fault->code;
  return fault != nullptr;
}

// The same for a call that may do less than it was asked for: `bytes` becomes what it may do.
bool fails(Call call, std::size_t& bytes) {
  const Fault* fault = count(call);
  if (fault == nullptr) return false;
  errno = fault->code;
  if (fault->code == 0) bytes = std::min<std::size_t>(bytes, 1);
  return fault->code != 0;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

// The C library's function of the same name and type.
#define QMILL_REAL(function) \
  static auto* const real = next<decltype(::function)>(#function)

int open_file(const char* path, int (*really)(const char*, int, ...), int flags, mode_t mode) {
  const bool watched = watches(path);
  if (watched && fails(Call::open)) return -1;
  const int handle = really(path, flags, mode);
  note_handle(handle, watched);
  return handle;
}

std::FILE* open_stream(const char* path, std::FILE* (*really)(const char*, const char*), const char* mode) {
  const bool watched = watches(path);
  if (watched && fails(Call::open)) return nullptr;
  std::FILE* file = really(path, mode);
  if (file != nullptr) note_handle(::fileno(file), watched);
  return file;
}

mode_t mode_of(int flags, std::va_list arguments) { return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0; }

}  // namespace

std::string_view name_of(Call call) {
  constexpr std::string_view kNames[] = {"open",     "read",           "write",           "fsync", "rename", "renameat2", "ftruncate",
                                         "posix_fallocate", "copy_file_range", "flock", "link",   "unlink",    "fchmod"};
  static_assert(std::size(kNames) == kCallCount);
  return kNames[static_cast<std::size_t>(call)];
}

InjectedFaults::InjectedFaults(const std::filesystem::path& folder, std::vector<Fault> faults) {
  watched_folder = folder.string() + "/";
  wanted = std::move(faults);
  for (auto& number : counts) number = 0;
  is_armed = true;
}

InjectedFaults::~InjectedFaults() { is_armed = false; }

std::uint64_t InjectedFaults::calls(Call call) const { return counts[static_cast<std::size_t>(call)]; }

}  // namespace qmill::testing

using namespace qmill::testing;

// What the program and its libraries call. The names, types and exception specifications are those of the C library.
#pragma GCC visibility push(default)
extern "C" {

#define QMILL_OPEN(function)                               \
  int function(const char* path, int flags, ...) {         \
    QMILL_REAL(function);                                  \
    std::va_list arguments;                                \
    va_start(arguments, flags);                            \
    const mode_t mode = mode_of(flags, arguments);         \
    va_end(arguments);                                     \
    return open_file(path, real, flags, mode);             \
  }
QMILL_OPEN(open)
QMILL_OPEN(open64)

#define QMILL_FOPEN(function)                                                                        \
  std::FILE* function(const char* path, const char* mode) {                                          \
    QMILL_REAL(function);                                                                            \
    return open_stream(path, real, mode);                                                            \
  }
QMILL_FOPEN(fopen)
QMILL_FOPEN(fopen64)

int close(int handle) {
  QMILL_REAL(close);
  note_handle(handle, false);
  return real(handle);
}

#define QMILL_AT(function, call, buffer)                                          \
  ssize_t function(int handle, buffer bytes, std::size_t size, off_t offset) {    \
    QMILL_REAL(function);                                                         \
    if (watches(handle) && fails(call, size)) return -1;                          \
    return real(handle, bytes, size, offset);                                     \
  }
QMILL_AT(pread, Call::read, void*)
QMILL_AT(pread64, Call::read, void*)
QMILL_AT(pwrite, Call::write, const void*)
QMILL_AT(pwrite64, Call::write, const void*)

ssize_t read(int handle, void* bytes, std::size_t size) {
  QMILL_REAL(read);
  if (watches(handle) && fails(Call::read, size)) return -1;
  return real(handle, bytes, size);
}

ssize_t write(int handle, const void* bytes, std::size_t size) {
  QMILL_REAL(write);
  if (watches(handle) && fails(Call::write, size)) return -1;
  return real(handle, bytes, size);
}

// Thousands of runs need not wait for the disk.
#define QMILL_SYNC(function)                              \
  int function(int handle) {                              \
    QMILL_REAL(function);                                 \
    if (!watches(handle)) return real(handle);            \
    return fails(Call::sync) ? -1 : 0;                    \
  }
QMILL_SYNC(fsync)
QMILL_SYNC(fdatasync)

int rename(const char* from, const char* to) noexcept {
  QMILL_REAL(rename);
  return watches(to) && fails(Call::rename) ? -1 : real(from, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  QMILL_REAL(renameat2);
  return watches(to) && fails(Call::exchange) ? -1 : real(from_folder, from, to_folder, to, flags);
}

#define QMILL_TRUNCATE(function)                                                              \
  int function(int handle, off_t bytes) noexcept {                                            \
    QMILL_REAL(function);                                                                     \
    return watches(handle) && fails(Call::truncate) ? -1 : real(handle, bytes);               \
  }
QMILL_TRUNCATE(ftruncate)
QMILL_TRUNCATE(ftruncate64)

// These return the error instead of setting errno.
#define QMILL_RESERVE(function)                                                               \
  int function(int handle, off_t offset, off_t bytes) {                                       \
    QMILL_REAL(function);                                                                     \
    return watches(handle) && fails(Call::reserve) ? errno : real(handle, offset, bytes);     \
  }
QMILL_RESERVE(posix_fallocate)
QMILL_RESERVE(posix_fallocate64)

ssize_t copy_file_range(int from, off64_t* from_offset, int to, off64_t* to_offset, std::size_t size, unsigned flags) {
  QMILL_REAL(copy_file_range);
  if (watches(to) && fails(Call::copy, size)) return -1;
  return real(from, from_offset, to, to_offset, size, flags);
}

int flock(int handle, int operation) noexcept {
  QMILL_REAL(flock);
  return watches(handle) && fails(Call::lock) ? -1 : real(handle, operation);
}

int link(const char* from, const char* to) noexcept {
  QMILL_REAL(link);
  return watches(to) && fails(Call::link) ? -1 : real(from, to);
}

#define QMILL_UNLINK(function)                                             \
  int function(const char* path) noexcept {                                \
    QMILL_REAL(function);                                                  \
    return watches(path) && fails(Call::unlink) ? -1 : real(path);         \
  }
QMILL_UNLINK(unlink)
QMILL_UNLINK(remove)

int fchmod(int handle, mode_t mode) noexcept {
  QMILL_REAL(fchmod);
  return watches(handle) && fails(Call::mode) ? -1 : real(handle, mode);
}

}  // extern "C"
#pragma GCC visibility pop
