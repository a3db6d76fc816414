// Where the entries of a zip archive lie. Entries of torch.save() are stored, not compressed, so that tensors are read, and
// copied from file to file, at their place in the archive by several threads at once. Libraries for zip have one reading position per
// archive and do not say where an entry's bytes are; so the directory is read here.
// Format: APPNOTE.TXT 6.3 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), with the 64-bit fields of its section 4.3.14.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

namespace pytorch {

struct ZipEntry {
  std::uint64_t offset = 0;  // of its bytes, in the file
  std::uint64_t bytes = 0;   // there
  bool is_stored = true;     // else compressed
};

// Fills `out` from this place of the file; only called for what lies within it.
using ReadAt = std::function<void(std::uint64_t offset, std::span<std::byte> out)>;

// By name. Checked: both headers of every entry agree, entries lie in the file and do not overlap, none is encrypted, no name
// is there twice. Checksums are not: that would read everything. Throws Error(input) naming the entry.
std::map<std::string, ZipEntry> read_zip_directory(std::uint64_t file_size, const ReadAt& read);

}  // namespace pytorch
