// Positioned reads from one file, for loaders.
#pragma once

#include <qmill/export.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace qmill {

// Open from construction to destruction. Every member but construction may be called from several threads at once.
class QMILL_API FileReader {
 public:
  // Throws Error(io) with the system's reason.
  explicit FileReader(std::filesystem::path path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // when it was opened

  // Fills `out` from `offset`. Throws Error(io), or Error(input) when the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

  // Asks the system to read ahead.
  void prefetch(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  int handle_ = -1;
  std::uint64_t size_ = 0;
};

// Git leaves a short text in place of a file that Git LFS has not fetched. Loaders call this for each file that they open. Throws
// Error(input) that names the file and says so, and Error(io). [any-thread]
QMILL_API void require_no_lfs_pointer(const FileReader& reader);

}  // namespace qmill
