// Finds the command, runs it, and turns what went wrong into one line and an exit status.
#include "commands.h"
#include "help.h"

#include <qmill/core/convert.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/tag.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

namespace qmill::app {
namespace {

void print_version() {
  fmt::print("qmill {} (SDK {}.{}, LibTorch {}.{}.{}, {} {}, {}, {})\n", QMILL_VERSION, QMILL_SDK_MAJOR, QMILL_SDK_MINOR,
             TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH,
#if defined(__clang__)
             "clang", __clang_version__,
#elif defined(__GNUC__)
             "gcc", __VERSION__,
#else
             "compiler", "unknown",
#endif
             QMILL_ABI, simd_name());
}

int dispatch(Words words) {
  if (words.empty() || words.front() == "--help" || words.front() == "-h" || words.front() == "help") {
    const bool wants_all = words.size() > 1 && words[1] == "all";
    if (wants_all) return run_convert({"--help", "all"});
    fmt::print("{}", program_help(command_overview()));
    return words.empty() ? kUsage : kDone;
  }
  if (words.front() == "--version") {
    print_version();
    return kDone;
  }
  using Run = int (*)(const Words&);
  const std::pair<const char*, Run> runs[] = {{"convert", run_convert}, {"plan", run_plan},           {"inspect", run_inspect},
                                              {"compare", run_compare}, {"calibrate", run_calibrate}, {"plugins", run_plugins},
                                              {"filters", run_filters}};
  for (const auto& [name, run] : runs)
    if (words.front() == name) {
      words.erase(words.begin());
      return run(words);
    }
  if (words.front().starts_with("-")) return run_convert(words);
  std::vector<std::string> names;
  for (const auto& [name, run] : runs) names.emplace_back(name);
  std::error_code ignored;
  if (std::filesystem::exists(words.front(), ignored))
    throw Error(ErrorKind::usage, fmt::format("'{}' is a file, not a command", words.front()),
                fmt::format("to convert it: qmill -i {}", words.front()));
  throw Error(ErrorKind::usage, unknown_name_message("command", words.front(), names), "to convert: qmill -i MODEL");
}

int status_of(const Error& error) {
  if (dynamic_cast<const QualityError*>(&error) != nullptr) return kQualityBelow;
  if (error.kind() == ErrorKind::cancelled) return kInterrupted;
  return error.kind() == ErrorKind::usage ? kUsage : kFailed;
}

int run(Words words) {
  try {
    return dispatch(std::move(words));
  } catch (const Error& error) {
    fmt::print(stderr, "qmill: error: {}\n", error.what());
    return status_of(error);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "qmill: error: out of memory; use --in-flight with a smaller number\n");
  } catch (const std::exception& error) {
    fmt::print(stderr, "qmill: error: unexpected: {}\n", error.what());
  }
  return kFailed;
}

}  // namespace
}  // namespace qmill::app

int main(int argc, char** argv) {
  int status = qmill::app::run({argv + 1, argv + argc});
  // A result that did not reach its reader (a full disk behind '>') is a failure.
  if (std::fflush(stdout) != 0 && status == 0) status = qmill::app::kFailed;
  // Nothing is left to do, and taking LibTorch down takes a third of the time that it takes to load. Sanitizers report at a full exit.
  if (std::string_view(QMILL_BUILD_KIND) == "plain") std::_Exit(status);
  return status;
}
