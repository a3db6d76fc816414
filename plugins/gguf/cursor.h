// Reads the header of a GGUF file from front to back, a buffer at a time. Never past the file's end or kMaxHeaderBytes.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gguf {

inline constexpr std::uint64_t kMaxHeaderBytes = 256u << 20;  // vocabularies are in it: real ones have some 20 MB

// Fills `out` from this place of the file; only called for what lies within it.
using ReadAt = std::function<void(std::uint64_t offset, std::span<std::byte> out)>;

// Throws Error(input).
[[noreturn]] void reject(std::string message, std::string advice = "the file is damaged or not GGUF; get it again");

// `what` names in errors what is read. All throw Error(input) where the file has no such thing.
class Cursor {
 public:
  Cursor(std::uint64_t file_size, const ReadAt& read);

  std::uint64_t place() const { return place_; }

  // How many things of at least `bytes` bytes may still follow.
  std::uint64_t room_for(std::uint64_t bytes) const { return (end_ - place_) / bytes; }

  void skip(std::uint64_t bytes, std::string_view what);

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
  std::string text(std::string_view what, std::uint64_t at_most);
  void skip_text(std::string_view what);

 private:
  void require(std::uint64_t bytes, std::string_view what) const;
  void take(std::span<std::byte> out, std::string_view what);

  const std::uint64_t end_;
  const std::uint64_t file_size_;
  const ReadAt& read_;
  std::uint64_t place_ = 0;
  std::vector<std::byte> buffer_;
  std::uint64_t buffer_start_ = 0;
  std::uint64_t filled_ = 0;
};

}  // namespace gguf
