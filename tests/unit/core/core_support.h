// Shorthands of the tests of core.
#pragma once

#include "model_file.h"
#include "temp_dir.h"

#include <qmill/core/convert.h>
#include <qmill/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace qmill::testing {

// The plugins of this build.
inline const Host& host() {
  static const Host host({QMILL_TEST_PLUGINS});
  return host;
}

// Calls `function` and expects an Error of this kind whose line has all of `parts`.
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

// One conversion in a folder of its own.
struct Job {
  Job() {
    options.input = dir / "in.safetensors";
    options.output = dir / "out.safetensors";
    options.threads = 2;
    options.sync = false;
  }
  explicit Job(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata = {}) : Job() {
    write_model(options.input, tensors, metadata);
  }

  Plan plan() {
    source = host().open(options.input);
    return make_plan(host(), *source, options);
  }
  ConvertReport run(const RunHooks& hooks = {}) {
    made = plan();
    return run_plan(*source, made, options, hooks);
  }
  ModelFile output() const { return read_model(options.output); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  TempDir dir;
  ConvertOptions options;
  std::unique_ptr<TensorSource> source;
  Plan made;
};

inline const Decision& decision_of(const Plan& plan, std::string_view name) {
  for (const Decision& decision : plan.decisions)
    if (decision.source.name == name) return decision;
  throw std::runtime_error("no decision about " + std::string(name));
}

}  // namespace qmill::testing
