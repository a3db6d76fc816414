// A file that appears under its name only when it is complete.
#pragma once

#include <qmill/loader.h>

#include <filesystem>
#include <map>
#include <span>

namespace qmill {

// "model.safetensors.qmill-part"
std::filesystem::path part_of(const std::filesystem::path& destination);

// In one step. False, with errno: the system cannot do that, or one of them is not there.
bool exchange_names(const std::filesystem::path& one, const std::filesystem::path& other);

// Whether a run that goes on has this part open.
bool is_in_use(const std::filesystem::path& part);

// Written under a temporary name beside its destination; publish() renames it there, the destructor removes it if
// publish() was not reached. Writes to different places may come from different threads; copy() from one at a time.
class OutputFile {
 public:
  enum class Part {
    own,       // a name that nothing else uses
    fresh,     // part_of(destination), which must not exist: a later run may go on with it
    existing,  // the one that is there, which stays if this run ends early
    shared,    // the one that is there, which another process has made and will publish
  };

  // Reserves the space. Throws Error(io) when the folder is missing or cannot be written, there is too little space, or another run writes
  // this part.
  OutputFile(std::filesystem::path destination, std::uint64_t bytes, Part part = Part::own);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void read(std::uint64_t offset, std::span<std::byte> out) const;

  // From file to file, without passing through this process where the system can do that.
  void copy(const Extent& from, std::uint64_t offset);

  // What was written so far is on the disk.
  void sync();

  // `sync`: the data is on the disk before the name is. Throws Error(io) when a file is there that was not when the run began, unless
  // `overwrite` replaces it, keeping its permissions.
  void publish(bool sync, bool overwrite);

  // The steps of publish() for one of several files (output_set.h). rename() keeps what it replaces, if the system can, until settle();
  // take_back() brings that back, or says in a warning where it is.
  void rename(bool overwrite, bool keeps_replaced);
  void take_back() noexcept;
  void settle(bool sync) noexcept;

  // The destructor leaves the part where it is.
  void keep() { kept_ = true; }
  const std::filesystem::path& part() const { return part_; }

 private:
  void lock();
  void reserve(std::uint64_t bytes);
  int set_size(std::uint64_t bytes);
  void tell_not_back(int code) const noexcept;
  int input_handle(const std::filesystem::path& file);

  std::filesystem::path destination_;
  std::filesystem::path part_;
  int handle_ = -1;
  bool kept_ = false;
  bool published_ = false;
  bool replaced_ = false;  // what was at the destination has the part's name
  std::map<std::filesystem::path, int> inputs_;  // open for copy()
};

}  // namespace qmill
