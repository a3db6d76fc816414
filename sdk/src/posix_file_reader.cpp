#include <qmill/file_reader.h>

#include <qmill/error.h>

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace qmill {
namespace {

Error system_error(const std::filesystem::path& path, const char* doing, int code) {
  return Error(ErrorKind::io, fmt::format("cannot {}: {}", doing, std::generic_category().message(code)))
      .in(fmt::format("'{}'", path.string()));
}

}  // namespace

FileReader::FileReader(std::filesystem::path path) : path_(std::move(path)) {
  // Without O_NONBLOCK a named pipe would be waited for here.
  do handle_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  while (handle_ < 0 && errno == EINTR);
  if (handle_ < 0) throw system_error(path_, "open it", errno);
  struct stat status = {};
  if (::fstat(handle_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(handle_);
    if (S_ISDIR(status.st_mode)) throw system_error(path_, "read it as a file", EISDIR);
    throw Error(ErrorKind::input, "it is a pipe, a socket or a device, expected a file", "write what it gives into a file first")
        .in(fmt::format("'{}'", path_.string()));
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

FileReader::~FileReader() { ::close(handle_); }

void FileReader::read(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::pread(handle_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error(path_, "read it", errno);
    if (got == 0)
      throw Error(ErrorKind::input, fmt::format("the file ends at byte {}, expected {} bytes from {}", offset + done, out.size(), offset),
                  "it was cut short or is being written; get the whole file")
          .in(fmt::format("'{}'", path_.string()));
    done += static_cast<std::size_t>(got);
  }
}

void FileReader::prefetch(std::uint64_t offset, std::uint64_t bytes) const {
#if defined(POSIX_FADV_WILLNEED)
  ::posix_fadvise(handle_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#else
  (void)offset, (void)bytes;
#endif
}

}  // namespace qmill
