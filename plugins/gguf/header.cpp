#include "header.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

namespace gguf {
namespace {

using qmill::DType;
using qmill::Error;
using qmill::ErrorKind;

constexpr std::uint64_t kMaxNameBytes = 65535;
constexpr std::uint64_t kMaxDimensions = 4;
constexpr std::uint64_t kMaxAlignment = 1 << 20;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr const char* kAlignmentKey = "general.alignment";

[[noreturn]] void reject(std::string message, std::string advice = "the file is damaged or not GGUF; get it again") {
  throw Error(ErrorKind::input, std::move(message), std::move(advice));
}

// Types of values; 8 is a text, 9 an array.
enum class ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

constexpr std::array<std::uint64_t, 13> kValueBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// Names of ggml's tensor types; empty: a number that was never given away, or has been withdrawn.
constexpr std::array<std::string_view, 40> kTensorTypes = {
    "F32",  "F16",   "Q4_0",    "Q4_1",   "",        "",      "Q5_0",   "Q5_1",  "Q8_0",  "Q8_1",   "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",  "I32",  "I64",
    "F64",  "IQ1_M", "BF16",    "",       "",        "",      "TQ1_0",  "TQ2_0", "",      "",       "",     "MXFP4"};
constexpr std::uint32_t kQ8_0 = 8;

std::optional<DType> plain_type(std::uint32_t type) {
  switch (type) {
    case 0:
      return DType::f32;
    case 1:
      return DType::f16;
    case 30:
      return DType::bf16;
    default:
      return std::nullopt;
  }
}

// Reads the header from front to back, a buffer at a time. Never past the file's end or kMaxHeaderBytes.
class Cursor {
 public:
  Cursor(std::uint64_t file_size, const ReadAt& read) : end_(std::min(file_size, kMaxHeaderBytes)), file_size_(file_size), read_(read) {}

  std::uint64_t place() const { return place_; }

  // How many things of at least `bytes` bytes may still follow.
  std::uint64_t room_for(std::uint64_t bytes) const { return (end_ - place_) / bytes; }

  void require(std::uint64_t bytes, std::string_view what) const {
    if (bytes <= end_ - place_) return;
    if (end_ < file_size_) reject(fmt::format("{} ends beyond the first {} bytes, where a header must end", what, kMaxHeaderBytes));
    reject(fmt::format("{} at byte {} needs {} bytes, the file ends at byte {}", what, place_, bytes, file_size_),
           "the file is cut short; get the whole file");
  }

  void skip(std::uint64_t bytes, std::string_view what) {
    require(bytes, what);
    place_ += bytes;
  }

  template <class Number>
  Number number(std::string_view what) {
    std::array<std::byte, sizeof(Number)> bytes;
    take(bytes, what);
    static_assert(std::endian::native == std::endian::little);
    Number value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  // A length of 64 bits, then so many bytes of UTF-8.
  std::string text(std::string_view what, std::uint64_t at_most) {
    const auto length = number<std::uint64_t>(what);
    if (length > at_most) reject(fmt::format("{} has a text of {} bytes, allowed are {}", what, length, at_most));
    require(length, what);
    std::string text(length, '\0');
    take(std::as_writable_bytes(std::span(text)), what);
    try {
      (void)nlohmann::json(text).dump();  // the texts go into JSON
    } catch (const nlohmann::json::type_error&) {
      reject(fmt::format("{} has a text that is not UTF-8", what));
    }
    return text;
  }

  void skip_text(std::string_view what) {
    const auto length = number<std::uint64_t>(what);
    skip(length, what);
  }

 private:
  void take(std::span<std::byte> out, std::string_view what) {
    require(out.size(), what);
    while (!out.empty()) {
      if (place_ < buffer_start_ || place_ >= buffer_start_ + filled_) {
        buffer_start_ = place_;
        filled_ = std::min<std::uint64_t>(buffer_.size(), end_ - place_);
        read_(place_, std::span(buffer_).first(filled_));
      }
      const std::uint64_t from = place_ - buffer_start_;
      const std::size_t count = std::min<std::uint64_t>(out.size(), filled_ - from);
      std::memcpy(out.data(), buffer_.data() + from, count);
      out = out.subspan(count);
      place_ += count;
    }
  }

  const std::uint64_t end_;
  const std::uint64_t file_size_;
  const ReadAt& read_;
  std::uint64_t place_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64 << 10);
  std::uint64_t buffer_start_ = 0;
  std::uint64_t filled_ = 0;
};

ValueType value_type(Cursor& cursor, std::string_view what) {
  const auto type = cursor.number<std::uint32_t>(what);
  if (type >= kValueBytes.size()) reject(fmt::format("{} has the unknown value type {}", what, type));
  return static_cast<ValueType>(type);
}

void skip_array(Cursor& cursor, std::string_view what) {
  const ValueType type = value_type(cursor, what);
  const auto count = cursor.number<std::uint64_t>(what);
  if (type == ValueType::array) reject(fmt::format("{} is an array of arrays", what));
  if (type != ValueType::text) {
    const std::uint64_t bytes = kValueBytes[static_cast<std::size_t>(type)];
    if (count > cursor.room_for(bytes)) reject(fmt::format("{} is an array of {} values, more than the file holds", what, count));
    return cursor.skip(count * bytes, what);
  }
  if (count > cursor.room_for(sizeof(std::uint64_t)))
    reject(fmt::format("{} is an array of {} texts, more than the file holds", what, count));
  for (std::uint64_t i = 0; i < count; ++i) cursor.skip_text(what);
}

std::string scalar_text(Cursor& cursor, ValueType type, std::string_view what) {
  switch (type) {
    case ValueType::u8:
      return std::to_string(cursor.number<std::uint8_t>(what));
    case ValueType::i8:
      return std::to_string(cursor.number<std::int8_t>(what));
    case ValueType::u16:
      return std::to_string(cursor.number<std::uint16_t>(what));
    case ValueType::i16:
      return std::to_string(cursor.number<std::int16_t>(what));
    case ValueType::u32:
      return std::to_string(cursor.number<std::uint32_t>(what));
    case ValueType::i32:
      return std::to_string(cursor.number<std::int32_t>(what));
    case ValueType::u64:
      return std::to_string(cursor.number<std::uint64_t>(what));
    case ValueType::i64:
      return std::to_string(cursor.number<std::int64_t>(what));
    case ValueType::f32:
      return fmt::format("{}", cursor.number<float>(what));
    case ValueType::f64:
      return fmt::format("{}", cursor.number<double>(what));
    case ValueType::boolean: {
      const auto value = cursor.number<std::uint8_t>(what);
      if (value > 1) reject(fmt::format("{} is a truth value of {}", what, value));
      return value == 1 ? "true" : "false";
    }
    case ValueType::text:
      return cursor.text(what, kMaxHeaderBytes);
    case ValueType::array:
      break;
  }
  throw Error(ErrorKind::internal, fmt::format("{} is not a scalar", what));
}

std::map<std::string, std::string> parse_pairs(Cursor& cursor, std::uint64_t count, std::uint64_t& alignment) {
  std::map<std::string, std::string> metadata;
  std::set<std::string> arrays;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.text(fmt::format("key {}", i), kMaxNameBytes);
    const std::string what = fmt::format("the value of '{}'", key);
    const ValueType type = value_type(cursor, what);
    if (metadata.contains(key) || arrays.contains(key)) reject(fmt::format("the header has the key '{}' twice", key));
    if (type == ValueType::array) {
      skip_array(cursor, what);
      arrays.insert(std::move(key));
      continue;
    }
    std::string text = scalar_text(cursor, type, what);
    if (key == kAlignmentKey) {
      alignment = type == ValueType::u32 ? std::stoull(text) : 0;
      if (alignment == 0 || alignment > kMaxAlignment || !std::has_single_bit(alignment))
        reject(fmt::format("{} is {}, expected a power of 2 up to {} in 32 bits", what, text, kMaxAlignment));
      continue;  // of this container, not of the model
    }
    metadata.emplace(std::move(key), std::move(text));
  }
  return metadata;
}

// Sets the shape and the bytes that it takes. Values x 4 must fit 63 bits, so that no later arithmetic can overflow.
void parse_shape(Cursor& cursor, Entry& entry, std::string_view what) {
  const auto dimensions = cursor.number<std::uint32_t>(what);
  if (dimensions < 1 || dimensions > kMaxDimensions)
    reject(fmt::format("it has {} dimensions, expected 1 to {}", dimensions, kMaxDimensions));
  constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / 64;
  std::uint64_t total = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto dimension = cursor.number<std::uint64_t>(what);
    if (dimension > limit || (dimension != 0 && std::max<std::uint64_t>(total, 1) > limit / dimension))
      reject(fmt::format("its dimension {} is {}: too large", i, dimension));
    total = std::max<std::uint64_t>(total, 1) * std::max<std::uint64_t>(dimension, 1);
    entry.info.shape.push_back(static_cast<std::int64_t>(dimension));
  }
  std::reverse(entry.info.shape.begin(), entry.info.shape.end());
}

void parse_type(Cursor& cursor, Entry& entry, std::string_view what) {
  const auto type = cursor.number<std::uint32_t>(what);
  const std::optional<DType> plain = plain_type(type);
  if (plain) {
    entry.info.dtype = *plain;
    entry.bytes = static_cast<std::uint64_t>(entry.info.bytes());
    return;
  }
  if (type != kQ8_0) {
    const std::string_view name = type < kTensorTypes.size() ? kTensorTypes[type] : std::string_view();
    throw Error(ErrorKind::unsupported,
                fmt::format("it is {}, which is not read; F32, F16, BF16 and Q8_0 are",
                            name.empty() ? fmt::format("of the unknown type {}", type) : std::string(name)),
                "use a file of one of these types, if possible the original");
  }
  if (entry.info.shape.back() % kBlockValues != 0)
    reject(fmt::format("it is Q8_0 with rows of {} values, expected a multiple of {}", entry.info.shape.back(), kBlockValues));
  entry.is_q8_0 = true;
  entry.info.dtype = DType::f32;
  entry.bytes = static_cast<std::uint64_t>(entry.info.elements() / kBlockValues * kBlockBytes);
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
  if (magic != std::array<char, 4>{'G', 'G', 'U', 'F'}) {
    if (std::string_view(magic.data(), magic.size()) == "vers")
      reject("it is a Git LFS pointer, not the file itself", "download the real file and try again");
    reject("its first 4 bytes are not 'GGUF'");
  }
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version != 2 && version != 3) {
    const bool is_swapped = version != 0 && (version & 0xffff) == 0;
    throw Error(ErrorKind::unsupported,
                is_swapped ? std::string("it is big-endian") : fmt::format("it is GGUF version {}, only 2 and 3 are read", version),
                is_swapped ? "make a little-endian copy" : "convert it with a current gguf tool");
  }
  const auto tensors = cursor.number<std::uint64_t>("the number of tensors");
  const auto pairs = cursor.number<std::uint64_t>("the number of keys");
  constexpr std::uint64_t kSmallestEntry = 8 + 4 + 8 + 4 + 8;
  constexpr std::uint64_t kSmallestPair = 8 + 4 + 1;
  if (tensors > cursor.room_for(kSmallestEntry)) reject(fmt::format("it announces {} tensors, more than the file holds", tensors));
  if (pairs > cursor.room_for(kSmallestPair)) reject(fmt::format("it announces {} keys, more than the file holds", pairs));
  Header header;
  std::uint64_t alignment = kDefaultAlignment;
  header.metadata = parse_pairs(cursor, pairs, alignment);
  for (std::uint64_t i = 0; i < tensors; ++i) header.entries.push_back(parse_entry(cursor, i));
  place(header.entries, cursor.place(), alignment, file_size);
  return header;
}

}  // namespace gguf
