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
  std::error_code error;
  const fs::file_status status = fs::status(output, error);
  if (status.type() == fs::file_type::none)  // a loop of links, a folder that may not be searched, a name that is too long
    throw Error(ErrorKind::io, fmt::format("cannot look at it: {}", error.message()), "choose another name with `output`")
        .in(fmt::format("'{}'", output.string()));
  if (fs::is_symlink(fs::symlink_status(output, error)) && !fs::exists(status))
    refuse(output, fmt::format("it is a link to '{}', which does not exist", fs::read_symlink(output, error).string()),
           "make that file's folder and name it, or remove the link");
  if (fs::is_directory(status)) refuse(output, "it is a folder, expected a file name", "add a name ending in .safetensors");
  // A device or a pipe would be replaced by a file.
  if (fs::exists(status) && !fs::is_regular_file(status)) refuse(output, "it is not a regular file", "choose another name");
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
  std::error_code ignored, unknown;
  const fs::path place = fs::weakly_canonical(output, unknown);
  for (const fs::path& input : inputs)
    if (fs::equivalent(input, output, ignored) || (!unknown && fs::weakly_canonical(input, ignored) == place))
      refuse(output, fmt::format("it is the same file as the input '{}'", input.string()), "choose another name");
  if (fs::exists(output, ignored) && !overwrite)
    refuse(output, "the file exists already", "add `overwrite` to replace it, or choose another name");
}

}  // namespace qmill
