#include "io/output_file.h"

#include "io/posix_retried.h"
#include "io/remove_file.h"

#include <qmill/core/logging.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const char* doing, int code) {
  const char* advice = code == EACCES || code == EPERM || code == EROFS ? "choose a folder that you may write to with `output`"
                       : code == ENOSPC || code == EDQUOT               ? "free some space, or choose another disk with `output`"
                                                                        : "";
  throw Error(ErrorKind::io, fmt::format("cannot {}: {}", doing, std::generic_category().message(code)), advice)
      .in(fmt::format("'{}'", path.string()));
}

fs::path temporary_beside(const fs::path& destination) {
  std::random_device random;
  return destination.parent_path() / fmt::format(".{}.{:08x}.part", destination.filename().string(), random());
}

void require_space(const fs::path& destination, std::uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(destination.parent_path(), error);
  if (error || space.available >= bytes) return;  // when the system cannot tell, reserving the space will
  throw Error(ErrorKind::io, fmt::format("the file needs {} bytes, its disk has {} left", bytes, space.available),
              "free some space, or choose another disk with `output`")
      .in(fmt::format("'{}'", destination.string()));
}

}  // namespace

fs::path part_of(const fs::path& destination) { return destination.string() + ".qmill-part"; }

bool is_in_use(const fs::path& part) {
  const int handle = ::open(part.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (handle < 0) return false;
  const bool is_locked = ::flock(handle, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(handle);
  return is_locked;
}

bool exchange_names([[maybe_unused]] const fs::path& one, [[maybe_unused]] const fs::path& other) {
#if defined(RENAME_EXCHANGE)
  return ::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0;
#else
  errno = ENOSYS;
  return false;
#endif
}

OutputFile::OutputFile(fs::path destination, std::uint64_t bytes, Part part)
    : destination_(std::move(destination)), kept_(part == Part::existing || part == Part::shared) {
  if (!fs::is_directory(destination_.parent_path()))
    throw Error(ErrorKind::io, fmt::format("the folder '{}' does not exist", destination_.parent_path().string()),
                "make it, or choose another with `output`")
        .in(fmt::format("'{}'", destination_.string()));
  if (!kept_) require_space(destination_, bytes);
  part_ = part == Part::own ? temporary_beside(destination_) : part_of(destination_);
  const int flags = kept_ ? O_RDWR | O_CLOEXEC : O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  handle_ = retried([&] { return ::open(part_.c_str(), flags, 0666); });
  // A network file system may remember for a while that the file was not there.
  constexpr std::chrono::milliseconds kPause(100);
  for (int tries = 0; handle_ < 0 && errno == ENOENT && part == Part::shared && tries < 600; ++tries) {
    std::this_thread::sleep_for(kPause);
    handle_ = retried([&] { return ::open(part_.c_str(), flags); });
  }
  if (handle_ < 0) fail(part == Part::own ? destination_ : part_, "write there", errno);
  if (part == Part::shared) return;
  try {
    if (part != Part::own) lock();
    reserve(bytes);
    if (part == Part::existing && set_size(bytes) != 0) fail(part_, "write it", errno);
  } catch (...) {
    ::close(handle_);
    if (!kept_) remove_file(part_);
    throw;
  }
}

// Until this process ends or closes it. A file system that knows no locks has none.
void OutputFile::lock() {
  if (retried([&] { return ::flock(handle_, LOCK_EX | LOCK_NB); }) == 0 || errno != EWOULDBLOCK) return;
  throw Error(ErrorKind::io, "another run writes it now", "wait for that run, or choose another name with `output`")
      .in(fmt::format("'{}'", part_.string()));
}

int OutputFile::set_size(std::uint64_t bytes) {
  return retried([&] { return ::ftruncate(handle_, static_cast<off_t>(bytes)); });
}

void OutputFile::reserve(std::uint64_t bytes) {
#if defined(__linux__)
  int code = 0;
  do code = ::posix_fallocate(handle_, 0, static_cast<off_t>(bytes));
  while (code == EINTR);
  if (code == EOPNOTSUPP || code == EINVAL) code = set_size(bytes) == 0 ? 0 : errno;
#else
  const int code = set_size(bytes) == 0 ? 0 : errno;
#endif
  if (code != 0) fail(destination_, "reserve space for it", code);
}

OutputFile::~OutputFile() {
  for (const auto& [file, handle] : inputs_) ::close(handle);
  if (handle_ >= 0) ::close(handle_);
  if (replaced_ || !(kept_ || published_)) remove_file(part_);
}

void OutputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t done = retried([&] { return ::pread(handle_, out.data(), out.size(), static_cast<off_t>(offset)); });
    if (done <= 0) fail(part_, "read it", done < 0 ? errno : EIO);
    offset += static_cast<std::uint64_t>(done);
    out = out.subspan(static_cast<std::size_t>(done));
  }
}

void OutputFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(handle_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(destination_, "write it", errno);
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

int OutputFile::input_handle(const fs::path& file) {
  const auto known = inputs_.find(file);
  if (known != inputs_.end()) return known->second;
  const int handle = retried([&] { return ::open(file.c_str(), O_RDONLY | O_CLOEXEC); });
  if (handle < 0) fail(file, "open it", errno);
  inputs_.emplace(file, handle);
  return handle;
}

void OutputFile::copy(const Extent& from, std::uint64_t offset) {
  const int input = input_handle(from.file);
  std::uint64_t source = from.offset;
  std::uint64_t left = from.bytes;
  const auto require_progress = [&](ssize_t done) {
    if (done != 0) return;
    throw Error(ErrorKind::input, fmt::format("the file ends at byte {}, expected {} more", source, left),
                "it was changed during the run; try again")
        .in(fmt::format("'{}'", from.file.string()));
  };
#if defined(__linux__)
  while (left != 0) {
    auto in = static_cast<off_t>(source);
    auto out = static_cast<off_t>(offset);
    const ssize_t done = ::copy_file_range(input, &in, handle_, &out, left, 0);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM || errno == EIO))
      break;  // other file systems; and by parts it is known which of the two files cannot be used
    if (done < 0) fail(destination_, "copy into it", errno);
    require_progress(done);
    source += static_cast<std::uint64_t>(done);
    offset += static_cast<std::uint64_t>(done);
    left -= static_cast<std::uint64_t>(done);
  }
#endif
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(left, 1 << 20)));
  while (left != 0) {
    const ssize_t done =
        ::pread(input, buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size())), static_cast<off_t>(source));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(from.file, "read it", errno);
    require_progress(done);
    write(offset, std::span(buffer.data(), static_cast<std::size_t>(done)));
    source += static_cast<std::uint64_t>(done);
    offset += static_cast<std::uint64_t>(done);
    left -= static_cast<std::uint64_t>(done);
  }
}

void OutputFile::sync() {
  if (retried([&] { return ::fsync(handle_); }) != 0) fail(destination_, "write it to the disk", errno);
}

// Gives the part its name, in one step that other programs see whole.
void OutputFile::rename(bool overwrite, bool keeps_replaced) {
  struct stat replaced = {};
  if (overwrite) {
    const bool is_there = ::stat(destination_.c_str(), &replaced) == 0;
    if (is_there && !S_ISREG(replaced.st_mode)) fail(destination_, "replace what is there", S_ISDIR(replaced.st_mode) ? EISDIR : EEXIST);
    if (is_there && ::fchmod(handle_, replaced.st_mode & 07777) != 0)
      fail(destination_, "keep the permissions of the file that is replaced", errno);
    replaced_ = keeps_replaced && exchange_names(part_, destination_);
    // Without the old file it could not be brought back: only where there is none, or no system that can exchange names.
    if (keeps_replaced && !replaced_ && errno != ENOENT && errno != EINVAL && errno != ENOSYS)
      fail(destination_, "rename the finished file", errno);
    if (!replaced_ && ::rename(part_.c_str(), destination_.c_str()) != 0) fail(destination_, "rename the finished file", errno);
    published_ = true;
    return;
  }
  int code = EINVAL;
#if defined(RENAME_NOREPLACE)
  code = ::renameat2(AT_FDCWD, part_.c_str(), AT_FDCWD, destination_.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
#endif
  if (code == EINVAL || code == ENOSYS) {  // file systems without it: a second name, which never replaces either
    code = ::link(part_.c_str(), destination_.c_str()) == 0 ? 0 : errno;
    if (code == 0) remove_file(part_);
    if (code == EPERM || code == EOPNOTSUPP || code == EMLINK)  // nor links: the moment between these two calls remains
      code = ::access(destination_.c_str(), F_OK) == 0 ? EEXIST : ::rename(part_.c_str(), destination_.c_str()) == 0 ? 0 : errno;
  }
  if (code == EEXIST)
    throw Error(ErrorKind::io, "another program made a file of this name during the run",
                "move that file, or add `overwrite` to replace it")
        .in(fmt::format("'{}'", destination_.string()));
  if (code != 0) fail(destination_, "rename the finished file", code);
  published_ = true;
}

void OutputFile::publish(bool sync, bool overwrite) {
  if (sync) this->sync();
  rename(overwrite, false);
  settle(sync);
}

void OutputFile::tell_not_back(int code) const noexcept try {
  log(LogLevel::minimal,
      fmt::format("warning: '{}' is new, though the run failed: cannot rename it: {}{}", destination_.string(),
                  std::generic_category().message(code),
                  replaced_ ? fmt::format("; the file that it replaced is '{}'", part_.string()) : std::string()));
} catch (...) {  // no memory for the message
}

void OutputFile::take_back() noexcept {
  if (!published_) return;
  bool is_back = false;
  if (replaced_) is_back = exchange_names(part_, destination_);
  if (!replaced_) is_back = ::rename(destination_.c_str(), part_.c_str()) == 0;
  if (!is_back) tell_not_back(errno);
  published_ = !is_back;
  replaced_ = false;  // the old file stays, if only under the part's name
}

void OutputFile::settle(bool sync) noexcept {
  if (replaced_) remove_file(part_);
  replaced_ = false;
  if (!sync) return;
  const int folder = ::open(destination_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // the file is complete; its name is merely not certain to survive a power cut
  ::fsync(folder);
  ::close(folder);
}

}  // namespace qmill
