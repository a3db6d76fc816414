#include "header.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

namespace gguf {
namespace {

using qmill::Error;
using qmill::ErrorKind;

void parse_shape(Cursor& cursor, Entry& entry, std::string_view what) {
  const auto dimensions = cursor.number<std::uint32_t>(what);
  if (dimensions > kMaxDimensions) reject(fmt::format("it has {} dimensions, expected at most {}", dimensions, kMaxDimensions));
  std::uint64_t total = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto dimension = cursor.number<std::uint64_t>(what);
    if (dimension > kMaxValues || (dimension != 0 && total > kMaxValues / dimension))
      reject(fmt::format("its dimension {} is {}: too large", i, dimension));
    total *= std::max<std::uint64_t>(dimension, 1);
    entry.info.shape.push_back(static_cast<std::int64_t>(dimension));
  }
  std::reverse(entry.info.shape.begin(), entry.info.shape.end());
}

void parse_type(Cursor& cursor, Entry& entry, std::string_view what) {
  const auto number = cursor.number<std::uint32_t>(what);
  const TensorType* type = tensor_type(number);
  if (type == nullptr || type->block_values == 0)
    throw Error(ErrorKind::unsupported,
                fmt::format("it is {}, which is not read; {} are",
                            type == nullptr ? fmt::format("of the unknown type {}", number) : std::string(type->name), readable_types()),
                "use the original model, or a GGUF file of it with these types only");
  entry.type = type;
  entry.info.dtype = type->dtype;
  const std::int64_t row = entry.info.shape.empty() ? 1 : entry.info.shape.back();
  if (row % type->block_values != 0)
    reject(fmt::format("it is {} with rows of {} values, expected a multiple of {}", type->name, row, type->block_values));
  entry.bytes = static_cast<std::uint64_t>(entry.info.elements()) / type->block_values * type->block_bytes;
}

// The offset is still that within the data.
Entry parse_entry(Cursor& cursor, std::uint64_t index) {
  const std::string what = fmt::format("the entry of tensor {}", index);
  Entry entry;
  entry.info.name = cursor.text(what, kMaxNameBytes);
  try {
    parse_shape(cursor, entry, what);
    parse_type(cursor, entry, what);
    entry.offset = cursor.number<std::uint64_t>(what);
  } catch (Error& error) {
    throw error.in(fmt::format("tensor '{}'", entry.info.name));
  }
  return entry;
}

void place(std::vector<Entry>& entries, std::uint64_t header_bytes, std::uint64_t alignment, std::uint64_t file_size) {
  const std::uint64_t data_start = (header_bytes + alignment - 1) / alignment * alignment;
  std::set<std::string_view> names;
  for (Entry& entry : entries) {
    const auto fail = [&](std::string message, const char* advice) {
      Error error(ErrorKind::input, std::move(message), advice);
      throw error.in(fmt::format("tensor '{}'", entry.info.name));
    };
    constexpr const char* kDamaged = "the file is damaged; get it again";
    if (!names.insert(entry.info.name).second) fail("the header names it twice", kDamaged);
    if (entry.offset % alignment != 0)
      fail(fmt::format("its data starts at {} of the data, expected a multiple of {}", entry.offset, alignment), kDamaged);
    const std::uint64_t room = data_start > file_size ? 0 : file_size - data_start;
    if (entry.bytes != 0 && (entry.offset > room || entry.bytes > room - entry.offset))
      fail(fmt::format("its {} bytes start at {} of the data, of which the file has {}", entry.bytes, entry.offset, room),
           "the file is cut short; get the whole file");
    // Nothing is read of a tensor without values.
    entry.offset = entry.bytes == 0 ? std::min(data_start, file_size) : data_start + entry.offset;
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes); });
  for (std::size_t i = 1; i < entries.size(); ++i)
    if (entries[i].bytes != 0 && entries[i].offset < entries[i - 1].offset + entries[i - 1].bytes)
      reject(fmt::format("tensors '{}' and '{}' overlap", entries[i - 1].info.name, entries[i].info.name));
}

}  // namespace

Header parse_header(std::uint64_t file_size, const ReadAt& read) {
  Cursor cursor(file_size, read);
  const auto magic = cursor.number<std::array<char, 4>>("the magic");
  if (magic != std::array<char, 4>{'G', 'G', 'U', 'F'}) reject("its first 4 bytes are not 'GGUF'");
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool is_swapped = version != 0 && (version & 0xffff) == 0;
    throw Error(ErrorKind::unsupported,
                is_swapped ? std::string("it is big-endian") : fmt::format("it is GGUF version {}, only 2 and 3 are read", version),
                is_swapped ? "make a little-endian copy" : "convert it with a current gguf tool");
  }
  const auto tensors = cursor.number<std::uint64_t>("the number of tensors");
  const auto pairs = cursor.number<std::uint64_t>("the number of keys");
  constexpr std::uint64_t kSmallestEntry = 8 + 4 + 4 + 8;
  constexpr std::uint64_t kSmallestPair = 8 + 4 + 1;
  if (tensors > cursor.room_for(kSmallestEntry)) reject(fmt::format("it announces {} tensors, more than the file holds", tensors));
  if (pairs > cursor.room_for(kSmallestPair)) reject(fmt::format("it announces {} keys, more than the file holds", pairs));
  Header header;
  header.keys = parse_key_values(cursor, pairs);
  for (std::uint64_t i = 0; i < tensors; ++i) header.entries.push_back(parse_entry(cursor, i));
  place(header.entries, cursor.place(), header.keys.alignment, file_size);
  return header;
}

}  // namespace gguf
