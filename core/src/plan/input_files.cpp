#include "plan/input_files.h"

namespace qmill {

std::vector<std::filesystem::path> input_files(const TensorSource& source, const ConvertOptions& options) {
  std::vector<std::filesystem::path> files = source.files();
  files.insert(files.end(), {options.input, options.calibration.data, options.calibration.lora});
  files.insert(files.end(), options.merge.paths.begin(), options.merge.paths.end());
  std::erase_if(files, [](const std::filesystem::path& file) { return file.empty(); });
  return files;
}

std::vector<std::uint64_t> sizes_of_inputs(const TensorSource& source, const ConvertOptions& options) {
  std::vector<std::uint64_t> sizes;
  for (const std::filesystem::path& file : input_files(source, options)) {
    std::error_code ignored;
    sizes.push_back(std::filesystem::is_regular_file(file, ignored) ? std::filesystem::file_size(file, ignored) : 0);
  }
  return sizes;
}

}  // namespace qmill
