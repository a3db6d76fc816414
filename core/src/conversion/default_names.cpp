#include "conversion/default_names.h"

#include "plan/target.h"

#include <qmill/core/conversion.h>
#include <qmill/core/scaling.h>
#include <qmill/names.h>

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

std::filesystem::path default_output(const Host& host, const ConvertOptions& options) {
  const bool is_mixed =
      !options.layers.filters.empty() || !options.layers.custom.pattern.empty() || !options.layers.exclude.empty() || options.layers.config;
  const TargetResolver run(host, options.target);
  std::string format = run.usual_format().info().name;
  if (run.usual_scaling() != default_scaling(run.usual_format()) && !run.usual_format().scalings(format).empty())
    format += fmt::format("_{}", scaling_name(run.usual_scaling()));
  return output_beside(options.input, fmt::format("{}_{}{}", canonical_name(options.target.quantizer), format, is_mixed ? "_mixed" : ""));
}

}  // namespace qmill
