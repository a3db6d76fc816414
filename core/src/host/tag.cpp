#include "host/tag.h"

#include "host/library_check.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/tag.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

constexpr std::uint64_t kMaxLibraryBytes = 1ull << 30;
constexpr std::uint64_t kChunkBytes = 1 << 20;

// Put together here, so that the program does not contain the word it looks for.
std::string magic_word() {
  std::string word = "qmill";
  word += "-plugin";
  word += "-tag/1:";
  return word;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

PluginTag parse_tag(std::string_view text) {
  PluginTag tag;
  while (!text.empty()) {
    const std::size_t semicolon = text.find(';');
    const std::string_view field = text.substr(0, semicolon);
    text.remove_prefix(semicolon == std::string_view::npos ? text.size() : semicolon + 1);
    const std::size_t equals = field.find('=');
    if (equals == std::string_view::npos || equals + 1 == field.size())
      throw Error(ErrorKind::plugin, fmt::format("its tag has the field '{}', expected key=value", field));
    const std::string key(field.substr(0, equals));
    std::string value(field.substr(equals + 1));
    if (key == "sdk")
      tag.sdk = value;
    else if (key == "torch")
      tag.torch = value;
    else if (key == "abi")
      tag.abi = value;
    else if (key == "build")
      tag.build = value;
    else if (key == "name")
      tag.name = value;
    else
      tag.offers.emplace_back(key, value);  // kinds that this host does not know are never asked for
  }
  if (tag.sdk.empty() || tag.torch.empty() || tag.abi.empty() || tag.build.empty() || tag.name.empty())
    throw Error(ErrorKind::plugin, "its tag lacks one of sdk, torch, abi, build, name");
  return tag;
}

PluginTag own_tag() {
  const TagText tag = compatibility_tag();
  std::string text(tag.text, tag.length);
  text.erase(0, magic_word().size());
  return parse_tag(text + ";name=qmill");
}

std::string mismatch(const PluginTag& plugin, const PluginTag& host) {
  std::string reasons;
  const auto add = [&](std::string_view what, const std::string& built, const std::string& runs) {
    reasons += fmt::format("{}built for {} {}, this program runs {}", reasons.empty() ? "" : "; ", what, built, runs);
  };
  if (plugin.sdk != host.sdk) add("SDK", plugin.sdk, host.sdk);
  if (plugin.torch != host.torch) add("LibTorch", plugin.torch, host.torch);
  if (plugin.abi != host.abi) add("the C++ library", plugin.abi, host.abi);
  if (plugin.build != host.build) add("build kind", plugin.build, host.build);
  return reasons;
}

PluginTag read_tag(const std::filesystem::path& file) {
  const FileReader reader(file);
  if (reader.size() > kMaxLibraryBytes)
    throw Error(ErrorKind::plugin, fmt::format("it has {} bytes, a plugin at most {}", reader.size(), kMaxLibraryBytes));
  if (const std::string problem = library_problem(reader); !problem.empty()) throw Error(ErrorKind::plugin, problem);

  // Chunks overlap by a tag, so that a tag lies whole in one of them.
  const std::string word = magic_word();
  std::string chunk;
  for (std::uint64_t offset = 0; offset < reader.size(); offset += kChunkBytes) {
    chunk.resize(std::min(kChunkBytes + kTagBytes, reader.size() - offset));
    reader.read(offset, std::as_writable_bytes(std::span(chunk)));
    for (std::size_t at = chunk.find(word); at != std::string::npos; at = chunk.find(word, at + 1)) {
      const std::string_view rest = std::string_view(chunk).substr(at + word.size(), kTagBytes);
      const std::size_t end = rest.find(kTagEnd);
      if (end != std::string_view::npos && is_printable(rest.substr(0, end))) return parse_tag(rest.substr(0, end));
    }
  }
  throw Error(ErrorKind::plugin, "it has no qmill tag: it is not a plugin, or was built without QMILL_PLUGIN");
}

}  // namespace qmill
