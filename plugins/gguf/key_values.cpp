#include "key_values.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <array>
#include <bit>
#include <set>

namespace gguf {
namespace {

constexpr std::uint64_t kMaxAlignment = 1 << 20;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr std::string_view kShapePrefix = "comfy.gguf.orig_shape.";

// Types of values; 8 is a text, 9 an array.
enum class ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

constexpr std::array<std::uint64_t, 13> kValueBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

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

// As tools for ComfyUI write it, row-major.
Shape shape_array(Cursor& cursor, std::string_view what) {
  const ValueType type = value_type(cursor, what);
  const auto count = cursor.number<std::uint64_t>(what);
  if (type != ValueType::i32) reject(fmt::format("{} is not an array of 32-bit whole numbers", what));
  if (count < 1 || count > kMaxDimensions) reject(fmt::format("{} has {} dimensions, expected 1 to {}", what, count, kMaxDimensions));
  Shape shape;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto dimension = cursor.number<std::int32_t>(what);
    if (dimension < 0) reject(fmt::format("{} has the dimension {}", what, dimension));
    shape.push_back(dimension);
  }
  return shape;
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
  throw qmill::Error(qmill::ErrorKind::internal, fmt::format("{} is not a scalar", what));
}

bool is_whole(ValueType type) {
  return type != ValueType::f32 && type != ValueType::f64 && type != ValueType::boolean && type != ValueType::text;
}

// Writers differ in the type of these numbers.
std::uint64_t count_of(ValueType type, const std::string& text, std::string_view what) {
  if (!is_whole(type) || text.starts_with('-')) reject(fmt::format("{} is {}, expected a whole number from 0", what, text.substr(0, 40)));
  return std::stoull(text);
}

// Whether the key is one of the container, not of the model.
bool take_container_key(KeyValues& found, const std::string& key, ValueType type, const std::string& text, std::string_view what) {
  if (key == kAlignmentKey) {
    found.alignment = type == ValueType::u32 ? std::stoull(text) : 0;
    if (found.alignment == 0 || found.alignment > kMaxAlignment || !std::has_single_bit(found.alignment))
      reject(fmt::format("{} is {}, expected a power of 2 up to {} in 32 bits", what, text.substr(0, 40), kMaxAlignment));
  } else if (key == "split.no") {
    found.split.number = count_of(type, text, what);
  } else if (key == "split.count") {
    found.split.count = count_of(type, text, what);
  } else if (key == "split.tensors.count") {
    found.split.tensors = count_of(type, text, what);
  } else {
    return false;
  }
  return true;
}

}  // namespace

KeyValues parse_key_values(Cursor& cursor, std::uint64_t count) {
  KeyValues found;
  std::set<std::string> others;  // keys that are not in the metadata
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.text(fmt::format("key {}", i), kMaxNameBytes);
    const std::string what = fmt::format("the value of '{}'", key);
    const ValueType type = value_type(cursor, what);
    if (found.metadata.contains(key) || others.contains(key)) reject(fmt::format("the header has the key '{}' twice", key));
    if (key.starts_with(kShapePrefix)) {
      if (type != ValueType::array) reject(fmt::format("{} is one value, expected an array of dimensions", what));
      found.original_shapes.emplace(key.substr(kShapePrefix.size()), shape_array(cursor, what));
    } else if (type == ValueType::array) {
      skip_array(cursor, what);
    } else if (std::string text = scalar_text(cursor, type, what); !take_container_key(found, key, type, text, what)) {
      found.metadata.emplace(std::move(key), std::move(text));
      continue;
    }
    others.insert(std::move(key));
  }
  return found;
}

}  // namespace gguf
