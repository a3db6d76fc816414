#include "io/destination.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

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
    refuse(output, "it is a folder, expected a file name", "add a name ending in .safetensors");
  // A device or a pipe would be replaced by a file.
  if (fs::exists(output, ignored) && !fs::is_regular_file(output, ignored))
    refuse(output, "it is not a regular file", "choose another name");
}

void require_safetensors_name(const fs::path& output) {
  // A dot in a name need not begin an ending: "flux.dev", "v1.5".
  constexpr std::string_view kOtherKinds[] = {".gguf", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".json", ".txt", ".npz", ".msgpack", ".h5"};
  const std::string extension = output.extension().string();
  std::string small = extension;
  for (char& letter : small)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  if (std::find(std::begin(kOtherKinds), std::end(kOtherKinds), small) != std::end(kOtherKinds))
    refuse(output, fmt::format("its name ends in '{}', but what is written is a safetensors file", extension),
           "choose a name that ends in .safetensors");
}

void require_replaceable(const fs::path& output, const std::vector<fs::path>& inputs, bool overwrite) {
  std::error_code ignored;
  for (const fs::path& input : inputs)
    if (fs::equivalent(input, output, ignored) || fs::weakly_canonical(input, ignored) == fs::weakly_canonical(output, ignored))
      refuse(output, fmt::format("it is the same file as the input '{}'", input.string()), "choose another name");
  if (fs::exists(output, ignored) && !overwrite)
    refuse(output, "the file exists already", "add `overwrite` to replace it, or choose another name");
}

}  // namespace qmill
