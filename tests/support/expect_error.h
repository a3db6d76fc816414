// What a call throws.
#pragma once

#include <gtest/gtest.h>
#include <qmill/error.h>

#include <initializer_list>
#include <source_location>
#include <string_view>

namespace qmill::testing {

// The Error that the call throws; fails the test when it throws none.
template <class Call>
Error error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::internal, "");
}

// Expects an Error of this kind whose line has all of `parts`.
template <class Call>
void expect_error(ErrorKind kind, std::initializer_list<std::string_view> parts, Call call,
                  std::source_location where = std::source_location::current()) {
  const ::testing::ScopedTrace trace(where.file_name(), static_cast<int>(where.line()), "expect_error");
  const Error error = error_of(call);
  EXPECT_EQ(error_kind_name(error.kind()), error_kind_name(kind)) << error.what();
  for (const std::string_view part : parts)
    EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos) << "no '" << part << "' in: " << error.what();
}

}  // namespace qmill::testing
