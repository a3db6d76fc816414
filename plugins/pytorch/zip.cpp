#include "zip.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace pytorch {
namespace {

using qmill::Error;
using qmill::ErrorKind;

constexpr std::uint64_t kMaxDirectoryBytes = 256u << 20;

// Signatures, and the sizes of what they begin.
constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr std::uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;

[[noreturn]] void reject_archive(std::string message, std::string advice = "the archive is damaged or cut short; get the whole file") {
  throw Error(ErrorKind::input, std::move(message), std::move(advice));
}

// Little-endian numbers in bytes that are known to be there.
std::uint64_t number_at(std::string_view bytes, std::uint64_t at, int size) {
  std::uint64_t value = 0;
  for (int i = size - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::uint64_t>(i)]);
  return value;
}

std::uint64_t u16(std::string_view bytes, std::uint64_t at) { return number_at(bytes, at, 2); }
std::uint64_t u32(std::string_view bytes, std::uint64_t at) { return number_at(bytes, at, 4); }
std::uint64_t u64(std::string_view bytes, std::uint64_t at) { return number_at(bytes, at, 8); }

class Directory {
 public:
  Directory(std::uint64_t file_size, const ReadAt& read) : file_size_(file_size), read_(read) {}

  std::map<std::string, ZipEntry> entries() {
    find();
    if (bytes_ > kMaxDirectoryBytes) reject_archive(fmt::format("its directory has {} bytes, allowed are {}", bytes_, kMaxDirectoryBytes));
    const std::string directory = text(offset_, bytes_);
    std::map<std::string, ZipEntry> entries;
    std::uint64_t at = 0;
    for (std::uint64_t i = 0; i < count_; ++i) {
      auto [name, entry] = central_entry(directory, at);
      if (!entries.emplace(name, entry).second) reject_archive(fmt::format("its directory names '{}' twice", name));
    }
    if (at != bytes_) reject_archive(fmt::format("its directory has {} bytes, of which its {} entries take {}", bytes_, count_, at));
    require_apart(entries);
    return entries;
  }

 private:
  std::string text(std::uint64_t offset, std::uint64_t bytes) const {
    if (offset > file_size_ || bytes > file_size_ - offset)
      reject_archive(fmt::format("{} bytes from {} are asked for, the file has {}", bytes, offset, file_size_));
    std::string text(bytes, '\0');
    read_(offset, std::as_writable_bytes(std::span(text)));
    return text;
  }

  // The end record is the last thing in the file but for a comment of up to 65535 bytes.
  void find() {
    constexpr std::uint64_t kLongestComment = 65535;
    const std::uint64_t tail_bytes = std::min(file_size_, kEndBytes + kLongestComment);
    const std::string tail = text(file_size_ - tail_bytes, tail_bytes);
    for (std::uint64_t at = tail_bytes < kEndBytes ? 0 : tail_bytes - kEndBytes + 1; at-- > 0;) {
      if (u32(tail, at) != kEnd || u16(tail, at + 20) != tail_bytes - at - kEndBytes) continue;
      const std::uint64_t end = file_size_ - tail_bytes + at;
      take_end(tail.substr(at, kEndBytes), end);
      return;
    }
    reject_archive("it is a zip archive without its directory");
  }

  void take_end(const std::string& record, std::uint64_t end) {
    count_ = u16(record, 10);
    bytes_ = u32(record, 12);
    offset_ = u32(record, 16);
    std::uint64_t disks = u16(record, 4);
    if (end >= kLocator64Bytes) {
      const std::string locator = text(end - kLocator64Bytes, kLocator64Bytes);
      if (u32(locator, 0) == kLocator64) {
        end = u64(locator, 8);
        const std::string record64 = text(end, kEnd64Bytes);
        if (u32(record64, 0) != kEnd64) reject_archive("its directory is not where the end of the file says");
        disks = u32(record64, 16);
        count_ = u64(record64, 32);
        bytes_ = u64(record64, 40);
        offset_ = u64(record64, 48);
      }
    }
    if (disks != 0) reject_archive("it is one part of a split archive", "join the parts first");
    if (offset_ > end || bytes_ > end - offset_)
      reject_archive(fmt::format("its directory of {} bytes starts at byte {}, beyond its end at {}", bytes_, offset_, end));
    if (count_ > bytes_ / kCentralBytes) reject_archive(fmt::format("its directory of {} bytes announces {} entries", bytes_, count_));
  }

  // Moves `at` behind the entry.
  std::pair<std::string, ZipEntry> central_entry(std::string_view directory, std::uint64_t& at) const {
    if (directory.size() - at < kCentralBytes || u32(directory, at) != kCentral)
      reject_archive(fmt::format("its directory breaks off at byte {}", at));
    const std::string_view fixed = directory.substr(at, kCentralBytes);
    const std::uint64_t name_bytes = u16(fixed, 28), extra_bytes = u16(fixed, 30), comment_bytes = u16(fixed, 32);
    if (name_bytes + extra_bytes + comment_bytes > directory.size() - at - kCentralBytes)
      reject_archive(fmt::format("its directory breaks off at byte {}", at));
    std::string name(directory.substr(at + kCentralBytes, name_bytes));
    const std::string_view extra = directory.substr(at + kCentralBytes + name_bytes, extra_bytes);
    at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;

    constexpr std::uint64_t kSaturated = 0xffffffff;
    std::uint64_t compressed = u32(fixed, 20), bytes = u32(fixed, 24), header = u32(fixed, 42);
    std::vector<std::uint64_t*> wide;  // in the order of the extra field
    for (std::uint64_t* value : {&bytes, &compressed, &header})
      if (*value == kSaturated) wide.push_back(value);
    take_wide(extra, wide, name);
    if ((u16(fixed, 8) & 1) != 0) reject_archive(fmt::format("its entry '{}' is encrypted", name), "save the model again without encryption");
    const std::uint64_t method = u16(fixed, 10);
    if (method == 0 && compressed != bytes)
      reject_archive(fmt::format("its entry '{}' is stored, but has two sizes: {} and {}", name, compressed, bytes));
    return {name, {data_offset(name, header, compressed, method), compressed, method == 0}};
  }

  static void take_wide(std::string_view extra, const std::vector<std::uint64_t*>& wide, const std::string& name) {
    if (wide.empty()) return;
    while (extra.size() >= 4) {
      const std::uint64_t id = u16(extra, 0), length = u16(extra, 2);
      if (length > extra.size() - 4) break;
      if (id == 1 && length >= 8 * wide.size()) {
        for (std::size_t i = 0; i < wide.size(); ++i) *wide[i] = u64(extra, 4 + 8 * i);
        return;
      }
      extra.remove_prefix(4 + length);
    }
    reject_archive(fmt::format("its entry '{}' lacks its 64-bit sizes", name));
  }

  std::uint64_t data_offset(const std::string& name, std::uint64_t header, std::uint64_t bytes, std::uint64_t method) const {
    const std::string local = text(header, kLocalBytes);
    if (u32(local, 0) != kLocal) reject_archive(fmt::format("its entry '{}' is not where the directory says", name));
    const std::uint64_t name_bytes = u16(local, 26);
    if (u16(local, 8) != method || name_bytes != name.size() || text(header + kLocalBytes, name_bytes) != name)
      reject_archive(fmt::format("its entry '{}' is another one where the directory says that it lies", name));
    const std::uint64_t offset = header + kLocalBytes + name_bytes + u16(local, 28);
    if (offset > offset_ || bytes > offset_ - offset)
      reject_archive(fmt::format("its entry '{}' of {} bytes starts at byte {} and runs into the directory at {}", name, bytes, offset, offset_));
    return offset;
  }

  static void require_apart(const std::map<std::string, ZipEntry>& entries) {
    std::vector<std::pair<ZipEntry, std::string_view>> sorted;
    for (const auto& [name, entry] : entries) sorted.emplace_back(entry, name);
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first.offset, a.first.bytes) < std::pair(b.first.offset, b.first.bytes);
    });
    for (std::size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i].first.offset < sorted[i - 1].first.offset + sorted[i - 1].first.bytes)
        reject_archive(fmt::format("its entries '{}' and '{}' overlap", sorted[i - 1].second, sorted[i].second));
  }

  const std::uint64_t file_size_;
  const ReadAt& read_;
  std::uint64_t offset_ = 0;  // of the directory
  std::uint64_t bytes_ = 0;
  std::uint64_t count_ = 0;
};

}  // namespace

std::map<std::string, ZipEntry> read_zip_directory(std::uint64_t file_size, const ReadAt& read) {
  return Directory(file_size, read).entries();
}

}  // namespace pytorch
