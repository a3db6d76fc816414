#include "plan/input_files.h"

#include "io/file_identity.h"
#include "model/content_hash.h"

#include <qmill/core/decoded_source.h>
#include <qmill/error.h>

#include <fmt/format.h>

#include <set>

namespace qmill {

std::vector<std::filesystem::path> input_files(const TensorSource& source, const ConvertOptions& options) {
  std::vector<std::filesystem::path> files = source.files();
  files.insert(files.end(), {options.input, options.calibration.data, options.calibration.lora});
  files.insert(files.end(), options.merge.paths.begin(), options.merge.paths.end());
  std::erase_if(files, [](const std::filesystem::path& file) { return file.empty(); });
  return files;
}

std::vector<std::filesystem::path> files_beside(const TensorSource& source, const std::filesystem::path& input) {
  namespace fs = std::filesystem;
  std::error_code code;
  const std::vector<fs::path> files = source.files();
  if (files.empty() || !fs::is_directory(input, code)) return {};
  std::set<fs::path> known;
  for (const fs::path& file : files) known.insert(file.filename());
  std::set<fs::path> others;
  for (fs::directory_iterator entry(input, code), end; !code && entry != end; entry.increment(code)) {
    const fs::path name = entry->path().filename();
    if (name.extension() == files.front().extension() && !name.string().starts_with(".") && !known.contains(name))
      others.insert(input / name);
  }
  return {others.begin(), others.end()};
}

std::string identity_of_inputs(const TensorSource& source, const ConvertOptions& options) {
  std::string text;
  for (const std::filesystem::path& file : input_files(source, options)) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(file, ignored)) text += fmt::format("file {}\n", std::filesystem::file_size(file, ignored));
  }
  text += header_hash(source) + "\n";
  for (const StoredLayerEntry& layer : decoded_layers(source))
    text += fmt::format("{} {} {} {}\n", layer.info.base, dtype_name(layer.info.weight.dtype), layer.label.summary, layer.info.marker);
  return text;
}

std::vector<PlannedInput> planned_inputs(const TensorSource& source, const ConvertOptions& options) {
  std::vector<PlannedInput> inputs;
  std::set<std::filesystem::path> known;
  for (const std::filesystem::path& file : input_files(source, options)) {
    const std::optional<FileIdentity> identity = file_identity(file);
    if (identity && known.insert(file).second)
      inputs.push_back({file, identity->bytes, identity->modified, identity->device, identity->number});
  }
  return inputs;
}

void require_unchanged(const std::vector<PlannedInput>& inputs) {
  for (const PlannedInput& input : inputs)
    if (file_identity(input.file) != FileIdentity{input.device, input.number, input.bytes, input.modified})
      throw Error(ErrorKind::input, "another program changed it during the run", "try again when nothing writes it")
          .in(fmt::format("'{}'", input.file.string()));
}

}  // namespace qmill
