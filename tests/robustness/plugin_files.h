// Copies of plugins, with changes, in a folder of the test.
#pragma once

#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"

#include <stdexcept>
#include <string>
#include <string_view>

namespace qmill::testing {

inline std::filesystem::path good_plugin(const std::string& name) {
  return std::filesystem::path(QMILL_TEST_PLUGINS) / ("libqmill_" + name + ".so");
}
inline std::filesystem::path bad_plugin(const std::string& name) { return std::filesystem::path(QMILL_BAD_PLUGINS) / (name + ".so"); }

// Put together at run time: the test programs are no plugins either.
inline std::string tag_start() { return std::string("qmill-") + "plugin-tag/1:"; }

// Replaces `from` by `to` inside the tag, which has room for longer text.
inline std::string with_tag(std::string library, std::string_view from, std::string_view to) {
  const std::size_t start = library.find(tag_start());
  if (start == std::string::npos) throw std::runtime_error("no tag");
  const std::size_t length = library.find('\0', start) - start;
  std::string tag = library.substr(start, length);
  const std::size_t at = tag.find(from);
  if (at == std::string::npos) throw std::runtime_error("no " + std::string(from) + " in " + tag);
  tag.replace(at, from.size(), to);
  const std::size_t changed = std::max(length, tag.size());
  tag.resize(changed, '\0');
  return library.replace(start, changed, tag);
}

}  // namespace qmill::testing
