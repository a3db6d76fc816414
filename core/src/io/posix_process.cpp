#include <qmill/core/process.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <string>

#include <fcntl.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/resource.h>
#include <unistd.h>

namespace qmill {
namespace {

std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

extern "C" void note_interrupt(int signal) {
  interrupted = true;
  std::signal(signal, SIG_DFL);
}

// 0: there is none.
[[maybe_unused]] std::uint64_t read_number(const char* file) {
  std::uint64_t number = 0;
  std::ifstream(file) >> number;
  return number;
}

}  // namespace

std::uint64_t peak_memory_bytes() {
#if defined(__linux__)
  // What getrusage says here counts the program that started this one, too.
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
#endif
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<std::uint64_t>(usage.ru_maxrss);
#else
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

std::uint64_t free_memory_bytes() {
#if defined(__linux__)
  std::ifstream memory("/proc/meminfo");
  for (std::string word; memory >> word;) {
    std::uint64_t kib = 0;
    if (word == "MemAvailable:" && memory >> kib) {
      const std::uint64_t available = kib * 1024;
      // What a container uses of its limit is no guide: the cache of files counts.
      const std::uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
      return limit != 0 ? std::min(available, limit) : available;
    }
  }
#endif
  const auto pages = static_cast<std::uint64_t>(std::max<long>(0, ::sysconf(_SC_PHYS_PAGES)));
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 2;
}

const std::atomic<bool>& watch_interrupts() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction inherited = {};
    // nohup ignores SIGHUP, a shell SIGINT for what it runs in the background.
    if (::sigaction(signal, nullptr, &inherited) == 0 && inherited.sa_handler != SIG_IGN) std::signal(signal, note_interrupt);
  }
  return interrupted;
}

void prepare_process() {
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream)
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) ::open("/dev/null", O_RDWR);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
#if defined(__GLIBC__)
  // A fixed threshold: the one that glibc adapts grows to 32 MiB, and Hessians below it leave holes in the heap.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

bool is_terminal(Stream stream) { return ::isatty(stream == Stream::output ? STDOUT_FILENO : STDERR_FILENO) == 1; }

}  // namespace qmill
