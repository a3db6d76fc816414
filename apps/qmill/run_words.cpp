// Finds the command, runs it, and turns what went wrong into one line and an exit status.
#include "run_words.h"

#include "commands.h"
#include "help.h"
#include "shared_run.h"
#include "text.h"

#include <qmill/core/convert.h>
#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/tag.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
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

// "qmill -i FILE --edit-quant ...": edit's other form.
bool asks_for_edit(const Words& words) {
  return std::any_of(words.begin(), words.end(), [](const std::string& word) { return word == "--edit-quant" || word == "--edit_quant"; });
}

bool is_command(const std::string& word) {
  const std::vector<Command> commands = command_overview();
  return std::any_of(commands.begin(), commands.end(), [&](const Command& command) { return command.name == word; });
}

// "qmill --help", "qmill help WORD": the overview, a command's page, or one of convert's topics.
int help(const Words& words) {
  if (words.empty() || words.front().starts_with("-")) {
    fmt::print("{}", program_help(command_overview()));
    return kDone;
  }
  if (is_command(words.front())) return find_command(words.front()).run({"--help"});
  return run_convert({"--help", words.front()});
}

// Of several processes that share a run, none may do anything else.
void require_shareable(const Words& words) {
  if (peers() == nullptr || words.empty()) return;
  std::string refused;
  if (words.front() != "convert" && words.front() != "help" && !words.front().starts_with("-")) refused = words.front();
  if (asks_for_edit(words)) refused = "edit";
  if (std::any_of(words.begin(), words.end(), [](const std::string& word) { return word.starts_with("--dry-run") || word.starts_with("--dry_run"); }))
    refused = "--dry-run";
  if (!refused.empty())
    throw Error(ErrorKind::usage, fmt::format("'{}' is not for several processes, expected convert", refused),
                "run it with qmill, without mpirun");
}

int dispatch(Words words) {
  require_shareable(words);
  if (words.empty()) {
    fmt::print("{}", program_help(command_overview()));
    return kUsage;
  }
  const std::string first = words.front();
  if (first == "--help" || first == "-h" || first == "help") return help({words.begin() + 1, words.end()});
  if (first == "--version") {
    print_version();
    return kDone;
  }
  if (is_command(first)) {
    words.erase(words.begin());
    if (first == "convert" && asks_for_edit(words)) return run_edit(words);
    return find_command(first).run(words);
  }
  if (first.starts_with("-")) return asks_for_edit(words) ? run_edit(words) : run_convert(words);
  std::vector<std::string> names;
  for (const Command& command : command_overview()) names.push_back(command.name);
  std::error_code ignored;
  if (std::filesystem::exists(first, ignored))
    throw Error(ErrorKind::usage, fmt::format("'{}' is a file, not a command", first), fmt::format("to convert it: qmill -i {}", first));
  throw Error(ErrorKind::usage, unknown_name_message("command", first, names), "to convert: qmill -i MODEL");
}

int status_of(const Error& error) {
  if (dynamic_cast<const QualityError*>(&error) != nullptr) return kQualityBelow;
  if (error.kind() == ErrorKind::cancelled) return kInterrupted;
  return error.kind() == ErrorKind::usage ? kUsage : kFailed;
}

}  // namespace

Ending ending_of(Words words) {
  try {
    return {dispatch(std::move(words)), ""};
  } catch (const Error& error) {
    return {status_of(error), printable(as_flags(error.what()))};
  } catch (const std::bad_alloc&) {
    return {kFailed, "out of memory; use --in-flight with a smaller number"};
  } catch (const std::exception& error) {
    return {kFailed, fmt::format("unexpected: {}", error.what())};
  }
}

int run_words(Words words) {
  const Ending ending = ending_of(std::move(words));
  if (!ending.error.empty()) say(fmt::format("qmill: error: {}\n", ending.error));
  return ending.status;
}

}  // namespace qmill::app
