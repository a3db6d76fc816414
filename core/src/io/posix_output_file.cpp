#include "io/output_file.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>
#include <system_error>
#include <vector>

#include <fcntl.h>
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

OutputFile::OutputFile(fs::path destination, std::uint64_t bytes) : destination_(std::move(destination)) {
  if (!fs::is_directory(destination_.parent_path()))
    throw Error(ErrorKind::io, fmt::format("the folder '{}' does not exist", destination_.parent_path().string()),
                "make it, or choose another with `output`")
        .in(fmt::format("'{}'", destination_.string()));
  require_space(destination_, bytes);
  temporary_ = temporary_beside(destination_);
  handle_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (handle_ < 0) fail(destination_, "write there", errno);
#if defined(__linux__)
  int code = 0;
  do
    code = ::posix_fallocate(handle_, 0, static_cast<off_t>(bytes));
  while (code == EINTR);
  if (code == EOPNOTSUPP || code == EINVAL) code = ::ftruncate(handle_, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
#else
  const int code = ::ftruncate(handle_, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
#endif
  if (code != 0) {
    ::close(handle_);
    ::unlink(temporary_.c_str());
    fail(destination_, "reserve space for it", code);
  }
}

OutputFile::~OutputFile() {
  for (const auto& [file, handle] : inputs_) ::close(handle);
  if (handle_ >= 0) ::close(handle_);
  if (!published_) ::unlink(temporary_.c_str());
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
  const int handle = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
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
    if (done < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) break;  // other file systems: below
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

void OutputFile::publish(bool sync) {
  if (sync && ::fsync(handle_) != 0) fail(destination_, "write it to the disk", errno);
  if (::rename(temporary_.c_str(), destination_.c_str()) != 0) fail(destination_, "rename the finished file", errno);
  published_ = true;
  if (!sync) return;
  const int folder = ::open(destination_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // the file is complete; its name is merely not certain to survive a power cut
  ::fsync(folder);
  ::close(folder);
}

}  // namespace qmill
