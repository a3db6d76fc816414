// Copies of plugins, with changes, in a folder of the test.
#pragma once

#include "model_file.h"
#include "temp_dir.h"

#include <qmill/error.h>

#include <gtest/gtest.h>

#include <initializer_list>
#include <source_location>
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

template <class Function>
void expect_error(ErrorKind kind, std::initializer_list<std::string_view> parts, Function function,
                  std::source_location where = std::source_location::current()) {
  const ::testing::ScopedTrace trace(where.file_name(), static_cast<int>(where.line()), "expect_error");
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error_kind_name(error.kind()), error_kind_name(kind)) << error.what();
    for (const std::string_view part : parts)
      EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos) << "no '" << part << "' in: " << error.what();
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

}  // namespace qmill::testing
