// GGUF files by hand.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace gguf_test {

template <class Number>
std::string number(Number value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string text(const std::string& value) { return number<std::uint64_t>(value.size()) + value; }

inline std::string entry(const std::string& name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
  std::string bytes = text(name) + number<std::uint32_t>(static_cast<std::uint32_t>(dimensions.size()));
  for (const std::uint64_t dimension : dimensions) bytes += number(dimension);
  return bytes + number(type) + number(offset);
}

// A header of these pairs and entries, padded to `alignment`, then the data.
inline std::string file(const std::vector<std::string>& pairs, const std::vector<std::string>& entries, const std::string& data,
                        std::uint32_t version = 3, std::uint64_t alignment = 32) {
  std::string bytes = "GGUF" + number(version) + number<std::uint64_t>(entries.size()) + number<std::uint64_t>(pairs.size());
  for (const std::string& pair : pairs) bytes += pair;
  for (const std::string& each : entries) bytes += each;
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes + data;
}

}  // namespace gguf_test
