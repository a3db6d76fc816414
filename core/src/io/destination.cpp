#include "io/destination.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& output, std::string found, const char* advice) {
  throw Error(ErrorKind::usage, std::move(found), advice).in(fmt::format("'{}'", output.string()));
}

}  // namespace

void require_file_name(const fs::path& output) {
  std::error_code ignored;
  if (fs::is_directory(output, ignored))
    refuse(output, "the output is a folder, expected a file name", "add a name ending in .safetensors");
  // A device or a pipe would be replaced by a file.
  if (fs::exists(output, ignored) && !fs::is_regular_file(output, ignored))
    refuse(output, "the output is no regular file", "choose another `output`");
}

void require_replaceable(const fs::path& output, const std::vector<fs::path>& inputs, bool overwrite) {
  std::error_code ignored;
  for (const fs::path& input : inputs)
    if (fs::equivalent(input, output, ignored) || fs::weakly_canonical(input, ignored) == fs::weakly_canonical(output, ignored))
      refuse(output, fmt::format("the output is the same file as the input '{}'", input.string()), "choose another `output`");
  if (fs::exists(output, ignored) && !overwrite)
    refuse(output, "the output exists already", "add `overwrite` to replace it, or choose another `output`");
}

}  // namespace qmill
