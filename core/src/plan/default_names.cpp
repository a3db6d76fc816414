#include "default_names.h"

#include <fmt/format.h>

namespace qmill {

std::filesystem::path output_beside(std::filesystem::path input, std::string_view suffix) {
  if (!input.has_filename()) input = input.parent_path();  // "folder/"
  std::string stem = input.filename().string();
  for (const std::string_view ending : {".safetensors.index.json", ".safetensors", ".gguf", ".pt", ".pth", ".ckpt", ".bin"})
    if (stem.ends_with(ending) && stem.size() > ending.size()) {
      stem.resize(stem.size() - ending.size());
      break;
    }
  return input.parent_path() / fmt::format("{}_{}.safetensors", stem, suffix);
}

}  // namespace qmill
