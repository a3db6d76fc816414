#include "cursor.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace gguf {

void reject(std::string message, std::string advice) { throw qmill::Error(qmill::ErrorKind::input, std::move(message), std::move(advice)); }

Cursor::Cursor(std::uint64_t file_size, const ReadAt& read)
    : end_(std::min(file_size, kMaxHeaderBytes)), file_size_(file_size), read_(read), buffer_(64 << 10) {}

void Cursor::require(std::uint64_t bytes, std::string_view what) const {
  if (bytes <= end_ - place_) return;
  if (end_ < file_size_) reject(fmt::format("{} ends beyond the first {} bytes, where a header must end", what, kMaxHeaderBytes));
  reject(fmt::format("{} at byte {} needs {} bytes, the file ends at byte {}", what, place_, bytes, file_size_),
         "the file is cut short; get the whole file");
}

void Cursor::skip(std::uint64_t bytes, std::string_view what) {
  require(bytes, what);
  place_ += bytes;
}

std::string Cursor::text(std::string_view what, std::uint64_t at_most) {
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

void Cursor::skip_text(std::string_view what) {
  const auto length = number<std::uint64_t>(what);
  skip(length, what);
}

void Cursor::take(std::span<std::byte> out, std::string_view what) {
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

}  // namespace gguf
