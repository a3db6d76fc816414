#include "header.h"

#include <qmill/error.h>
#include <qmill/json_check.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>

namespace safetensors {
namespace {

using nlohmann::json;
using qmill::Error;
using qmill::ErrorKind;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::size_t kMaxDimensions = 64;
constexpr int kMaxDepth = 3;  // {"name": {"shape": [...]}}

[[noreturn]] void reject(std::string message, std::string advice = "the file is damaged or not safetensors; get it again") {
  throw Error(ErrorKind::input, std::move(message), std::move(advice));
}

json parse_json(std::string_view text) {
  try {
    qmill::check_json(text, "the header", kMaxDepth);
  } catch (const Error& error) {
    reject(error.message());
  }
  json header = json::parse(text);
  if (!header.is_object()) reject(fmt::format("the header is a JSON {}, expected an object", header.type_name()));
  return header;
}

std::uint64_t unsigned_number(const json& value, std::string_view what) {
  if (!value.is_number_unsigned()) reject(fmt::format("{} is {}, expected a whole number", what, value.dump().substr(0, 40)));
  return value.get<std::uint64_t>();
}

const json& field(const json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end()) reject(fmt::format("it has no '{}'", key));
  return *found;
}

// Elements x bits must fit 63 bits, so that no later arithmetic can overflow; where a dimension is zero, those of the others.
void check_size(const qmill::TensorInfo& info, std::uint64_t bytes) {
  const auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const auto bits = static_cast<std::uint64_t>(qmill::dtype_bits(info.dtype));
  std::uint64_t total = bits;
  bool empty = false;
  for (const std::int64_t dimension : info.shape) {
    if (dimension == 0) {
      empty = true;
      continue;
    }
    if (static_cast<std::uint64_t>(dimension) > limit / total) reject(fmt::format("its shape {} is beyond 2^63 bits", info.shape_text()));
    total *= static_cast<std::uint64_t>(dimension);
  }
  if (empty) total = 0;
  if (total % 8 != 0) reject(fmt::format("its shape {} of {} does not fill whole bytes", info.shape_text(), dtype_name(info.dtype)));
  if (total / 8 != bytes)
    reject(fmt::format("it has {} bytes, expected {} for {} {}", bytes, total / 8, dtype_name(info.dtype), info.shape_text()));
}

Entry parse_entry(const std::string& name, const json& value, std::uint64_t data_start, std::uint64_t file_size) {
  if (!value.is_object()) reject("its entry is not an object");
  Entry entry;
  entry.info.name = name;
  const json& type = field(value, "dtype");
  const std::optional<qmill::DType> dtype = type.is_string() ? qmill::parse_dtype(type.get<std::string>()) : std::nullopt;
  if (!dtype) reject(fmt::format("its dtype {} is unknown", type.dump().substr(0, 40)), "this version cannot read it");
  entry.info.dtype = *dtype;
  const json& shape = field(value, "shape");
  if (!shape.is_array() || shape.size() > kMaxDimensions)
    reject(fmt::format("its shape is not a list of at most {} numbers", kMaxDimensions));
  for (const json& dimension : shape) {
    const std::uint64_t size = unsigned_number(dimension, "a dimension");
    if (size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) reject("a dimension is beyond 2^63");
    entry.info.shape.push_back(static_cast<std::int64_t>(size));
  }
  const json& offsets = field(value, "data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) reject("its data_offsets are not two numbers");
  const std::uint64_t begin = unsigned_number(offsets[0], "the start of its data");
  const std::uint64_t end = unsigned_number(offsets[1], "the end of its data");
  const std::uint64_t data_bytes = file_size - data_start;
  if (begin > end) reject(fmt::format("its data goes from {} to {}", begin, end));
  if (end > data_bytes)
    reject(fmt::format("its data ends at byte {}, the file at {}",
                       data_start + std::min(end, std::numeric_limits<std::uint64_t>::max() - data_start), file_size),
           "the file is cut short; get the whole file");
  check_size(entry.info, end - begin);
  entry.offset = data_start + begin;
  return entry;
}

std::map<std::string, std::string> parse_metadata(const json& value) {
  if (value.is_null()) return {};  // as some writers say that there is none
  if (!value.is_object()) reject("__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) reject(fmt::format("__metadata__ entry '{}' is not a text", key));
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

void check_contiguous(const std::vector<Entry>& entries, std::uint64_t data_start, std::uint64_t file_size) {
  std::uint64_t expected = data_start;
  for (const Entry& entry : entries) {
    if (entry.offset != expected)
      reject(fmt::format("tensor '{}': its data starts at byte {}, expected {}: tensors {}", entry.info.name, entry.offset, expected,
                         entry.offset < expected ? "overlap" : "leave a gap"));
    expected += static_cast<std::uint64_t>(entry.info.bytes());
  }
  if (expected != file_size) reject(fmt::format("the tensors end at byte {}, the file at {}", expected, file_size));
}

}  // namespace

std::uint64_t header_length(std::string_view first_bytes, std::uint64_t file_size) {
  if (first_bytes.size() < kLengthBytes) reject(fmt::format("it has {} bytes, expected at least {}", file_size, kLengthBytes));
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(first_bytes[static_cast<std::size_t>(i)]);
  if (length > kMaxHeaderBytes)
    reject(fmt::format("its first 8 bytes announce a header of {} bytes, allowed are {}", length, kMaxHeaderBytes));
  if (length > file_size - kLengthBytes)
    reject(fmt::format("its first 8 bytes announce a header of {} bytes, the file has {}", length, file_size));
  return length;
}

Header parse_header(std::string_view text, std::uint64_t file_size) {
  const std::uint64_t data_start = kLengthBytes + text.size();
  const json parsed = parse_json(text);
  Header header;
  for (const auto& [name, value] : parsed.items()) {
    if (name == "__metadata__") {
      header.metadata = parse_metadata(value);
      continue;
    }
    try {
      header.entries.push_back(parse_entry(name, value, data_start, file_size));
    } catch (Error& error) {
      throw error.in(fmt::format("tensor '{}'", name));
    }
  }
  const auto by_offset = [](const Entry& a, const Entry& b) {
    return std::pair(a.offset, a.info.bytes()) < std::pair(b.offset, b.info.bytes());
  };
  std::stable_sort(header.entries.begin(), header.entries.end(), by_offset);
  check_contiguous(header.entries, data_start, file_size);
  return header;
}

}  // namespace safetensors
