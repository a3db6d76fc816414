#include "host/downloads.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace qmill {
namespace {

constexpr std::size_t kSeenBytes = 512;
constexpr const char* kLinkAdvice = "the download failed: log in or accept the license where it is offered, and use the direct link";

std::string first_bytes(const FileReader& reader) {
  std::string text(std::min<std::uint64_t>(kSeenBytes, reader.size()), '\0');
  reader.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

// Without a byte order mark and space, in small letters. Empty: it is no text.
std::string as_text(std::string_view bytes) {
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(3);
  const std::size_t begin = bytes.find_first_not_of(" \t\r\n");
  std::string text;
  for (const char letter : bytes.substr(std::min(begin, bytes.size()))) {
    if (static_cast<unsigned char>(letter) < ' ' && std::string_view("\t\r\n").find(letter) == std::string_view::npos) return {};
    text += letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  }
  return text;
}

// For people: one line.
std::string beginning(std::string_view bytes) {
  std::string text(bytes.substr(0, 80));
  std::replace_if(text.begin(), text.end(), [](char letter) { return static_cast<unsigned char>(letter) < ' '; }, ' ');
  return text;
}

}  // namespace

void refuse_failed_download(const std::filesystem::path& file, std::string_view refusal) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) return;
  const FileReader reader(file);
  require_no_lfs_pointer(reader);
  const std::string bytes = first_bytes(reader);
  const std::string text = as_text(bytes);
  const auto refuse = [&](std::string found, const char* advice) {
    throw Error(ErrorKind::input, std::move(found), advice).in(fmt::format("'{}'", file.string()));
  };
  for (const std::string_view page : {"<!doctype html", "<html", "<head", "<body"})
    if (text.starts_with(page)) refuse("it is a web page, not a model", kLinkAdvice);
  const std::string shown = beginning(bytes) + (refusal.empty() ? std::string() : fmt::format(" (its loader says: {})", refusal));
  if (text.starts_with("<?xml")) refuse(fmt::format("it is a text of a server, not a model: {}", shown), kLinkAdvice);
  if (text.starts_with("{") && file.extension() != ".json") refuse(fmt::format("it is a JSON text, not a model: {}", shown), kLinkAdvice);
}

}  // namespace qmill
