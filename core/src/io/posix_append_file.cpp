#include "io/append_file.h"

#include "io/posix_retried.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

namespace qmill {
namespace {

[[noreturn]] void fail_to_append(const std::filesystem::path& path, int code) {
  throw Error(ErrorKind::io, fmt::format("cannot write it: {}", std::generic_category().message(code)))
      .in(fmt::format("'{}'", path.string()));
}

}  // namespace

AppendFile::AppendFile(std::filesystem::path file, std::uint64_t keep) : path_(std::move(file)), size_(keep) {
  handle_ = retried([&] { return ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666); });
  if (handle_ < 0) fail_to_append(path_, errno);
  if (retried([&] { return ::ftruncate(handle_, static_cast<off_t>(keep)); }) == 0) return;
  const int code = errno;
  ::close(handle_);
  fail_to_append(path_, code);
}

AppendFile::~AppendFile() { ::close(handle_); }

void AppendFile::add(std::string_view text, bool sync) {
  std::uint64_t end = size_;
  while (!text.empty()) {
    const ssize_t done = retried([&] { return ::pwrite(handle_, text.data(), text.size(), static_cast<off_t>(end)); });
    if (done < 0) fail_to_append(path_, errno);
    end += static_cast<std::uint64_t>(done);
    text.remove_prefix(static_cast<std::size_t>(done));
  }
  if (sync && retried([&] { return ::fsync(handle_); }) != 0) fail_to_append(path_, errno);
  size_ = end;
}

}  // namespace qmill
