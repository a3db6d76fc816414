// A file that appears under its name only when it is complete.
#pragma once

#include <qmill/loader.h>

#include <filesystem>
#include <map>
#include <span>

namespace qmill {

// Written under a temporary name beside its destination; publish() renames it there, the destructor removes it if
// publish() was not reached. Writes to different places may come from different threads; copy() from one at a time.
class OutputFile {
 public:
  // Reserves the space. Throws Error(io) when the folder is missing or cannot be written, or there is too little space.
  OutputFile(std::filesystem::path destination, std::uint64_t bytes);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes);

  // From file to file, without passing through this process where the system can do that.
  void copy(const Extent& from, std::uint64_t offset);

  // `sync`: the data is on the disk before the name is.
  void publish(bool sync);

 private:
  int input_handle(const std::filesystem::path& file);

  std::filesystem::path destination_;
  std::filesystem::path temporary_;
  int handle_ = -1;
  bool published_ = false;
  std::map<std::filesystem::path, int> inputs_;  // open for copy()
};

}  // namespace qmill
