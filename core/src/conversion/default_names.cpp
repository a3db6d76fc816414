#include "conversion/default_names.h"

#include "plan/target.h"

#include <qmill/core/conversion.h>
#include <qmill/core/scaling.h>
#include <qmill/names.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

namespace {

// Without a slash at its end, and with a name: "folder/" is "folder", "." the folder that it means.
std::filesystem::path with_name(std::filesystem::path model) {
  if (model.filename() == "." || model.filename() == "..") model = std::filesystem::absolute(model).lexically_normal();
  return model.has_filename() ? model : model.parent_path();
}

}  // namespace

std::string model_stem(const std::filesystem::path& model) {
  std::string stem = with_name(model).filename().string();
  // A part stands for the whole model.
  if (const std::optional<ShardName> part = parse_shard_name(stem)) return part->stem;
  for (const std::string_view ending :
       {".safetensors.index.json", ".bin.index.json", ".safetensors", ".gguf", ".pt", ".pth", ".ckpt", ".bin"})
    if (stem.ends_with(ending) && stem.size() > ending.size()) {
      stem.resize(stem.size() - ending.size());
      break;
    }
  return stem;
}

std::filesystem::path output_beside(const std::filesystem::path& input, std::string_view suffix) {
  return with_name(input).parent_path() / fmt::format("{}_{}.safetensors", model_stem(input), suffix);
}

std::filesystem::path default_output(const Host& host, const ConvertOptions& options) {
  const LayerSelection& layers = options.layers;
  const auto is_choice = [](const std::string& name) { return !same_name(name, kAutomaticFilter) && !same_name(name, kNoFilter); };
  const bool chooses_filters = std::any_of(layers.filters.begin(), layers.filters.end(), is_choice);
  const bool is_mixed = chooses_filters || !layers.custom.pattern.empty() || !layers.exclude.empty() ||
                        layers.config || layers.embeddings != Embeddings::off;
  const TargetResolver run(host, options.target);
  std::string format = run.usual_format().info().name;
  if (run.usual_scaling() != default_scaling(run.usual_format()) && !run.usual_format().scalings(format).empty())
    format += fmt::format("_{}", scaling_name(run.usual_scaling()));
  return output_beside(options.input, fmt::format("{}_{}{}", canonical_name(options.target.quantizer), format, is_mixed ? "_mixed" : ""));
}

}  // namespace qmill
