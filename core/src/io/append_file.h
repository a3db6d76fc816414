// A file that lines are added to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace qmill {

class AppendFile {
 public:
  // Begins at the first `keep` bytes of the file; the rest of it is dropped. Throws Error(io).
  AppendFile(std::filesystem::path file, std::uint64_t keep);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // `sync`: returns when the text is on the disk. Throws Error(io); the next text then takes the place of what was written of this one.
  void add(std::string_view text, bool sync);

 private:
  std::filesystem::path path_;
  int handle_ = -1;
  std::uint64_t size_ = 0;  // of the whole texts
};

}  // namespace qmill
