// Zip archives and pickles by hand.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pytorch_test {

inline std::string number(std::uint64_t value, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

struct Entry {
  std::string name;
  std::string data;
  std::uint64_t method = 0;
  std::uint64_t flags = 0x0808;  // as torch.save writes them
  std::uint64_t padding = 0;     // extra field of the local header, as torch.save uses it to align data
};

struct Archive {
  std::vector<Entry> entries;
  std::string comment;
  bool is_wide = true;  // 64-bit records: torch.save always writes those of the directory
  bool widens_entries = false;

  // The file; `offsets`, if it is given, gets where each entry's data lies.
  std::string bytes(std::vector<std::uint64_t>* offsets = nullptr) const {
    std::string file, directory;
    for (const Entry& entry : entries) {
      const std::uint64_t header = file.size();
      const std::string extra = entry.padding == 0 ? "" : "FB" + number(entry.padding, 2) + std::string(entry.padding, 'Z');
      file += number(0x04034b50, 4) + number(0, 2) + number(entry.flags, 2) + number(entry.method, 2) + std::string(16, '\0') +
              number(entry.name.size(), 2) + number(extra.size(), 2) + entry.name + extra;
      if (offsets != nullptr) offsets->push_back(file.size());
      file += entry.data;
      const std::uint64_t kSaturated = 0xffffffff;
      const std::string wide = !widens_entries ? ""
                                               : number(0x7777, 2) + number(1, 2) + "x" + number(1, 2) + number(24, 2) +
                                                     number(entry.data.size(), 8) + number(entry.data.size(), 8) + number(header, 8);
      const std::uint64_t size = widens_entries ? kSaturated : entry.data.size();
      directory += number(0x02014b50, 4) + number(0, 2) + number(0, 2) + number(entry.flags, 2) + number(entry.method, 2) +
                   std::string(8, '\0') + number(size, 4) + number(size, 4) + number(entry.name.size(), 2) + number(wide.size(), 2) +
                   number(0, 2) + number(0, 2) + number(0, 2) + number(0, 4) + number(widens_entries ? kSaturated : header, 4) +
                   entry.name + wide;
    }
    const std::uint64_t start = file.size();
    file += directory;
    if (is_wide) {
      const std::uint64_t end = file.size();
      file += number(0x06064b50, 4) + number(44, 8) + number(0, 2) + number(45, 2) + number(0, 4) + number(0, 4) +
              number(entries.size(), 8) + number(entries.size(), 8) + number(directory.size(), 8) + number(start, 8);
      file += number(0x07064b50, 4) + number(0, 4) + number(end, 8) + number(1, 4);
    }
    return file + number(0x06054b50, 4) + number(0, 2) + number(0, 2) + number(entries.size(), 2) + number(entries.size(), 2) +
           number(directory.size(), 4) + number(start, 4) + number(comment.size(), 2) + comment;
  }
};

// Opcodes.
inline std::string text(const std::string& value) { return "X" + number(value.size(), 4) + value; }
inline std::string integer(std::int64_t value) { return "\x8a" + number(8, 1) + number(static_cast<std::uint64_t>(value), 8); }
inline std::string global(const std::string& module, const std::string& name) { return "c" + module + "\n" + name + "\n"; }
inline std::string tuple(const std::vector<std::string>& items) {
  std::string bytes = "(";
  for (const std::string& item : items) bytes += item;
  return bytes + "t";
}
inline std::string numbers(const std::vector<std::int64_t>& values) {
  std::vector<std::string> items;
  for (const std::int64_t value : values) items.push_back(integer(value));
  return tuple(items);
}
inline std::string storage(const std::string& type, const std::string& key, std::int64_t elements) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), integer(elements)}) + "Q";
}
inline std::string tensor(const std::string& storage_bytes, std::int64_t offset, const std::vector<std::int64_t>& shape,
                          const std::vector<std::int64_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({storage_bytes, integer(offset), numbers(shape), numbers(strides), "\x89", global("collections", "OrderedDict") + ")R"}) +
         "R";
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string bytes = "}(";
  for (const auto& [key, value] : items) bytes += text(key) + value;
  return bytes + "u";
}
inline std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }

}  // namespace pytorch_test
