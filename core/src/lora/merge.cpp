#include "lora/merge.h"

#include "lora/change_shape.h"
#include "lora/fit.h"
#include "lora/load_change.h"
#include "model/content_hash.h"

#include <qmill/error.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <set>

namespace qmill {
namespace {

constexpr double kDampening = 0.9;
constexpr std::int64_t kValuesPerTask = 1 << 20;

void each_part(std::int64_t values, TaskPool& tasks, const std::function<void(std::int64_t begin, std::int64_t count)>& body) {
  tasks.parallel((values + kValuesPerTask - 1) / kValuesPerTask, [&](std::int64_t task) {
    const std::int64_t begin = task * kValuesPerTask;
    body(begin, std::min(kValuesPerTask, values - begin));
  });
}

at::Tensor as_f32(const at::Tensor& values, BufferPool& buffers, TaskPool& tasks) {
  const DType dtype = dtype_of(values);
  at::Tensor result = buffers.allocate(values.sizes(), DType::f32);
  const auto* source = static_cast<const std::byte*>(values.const_data_ptr());
  float* out = result.mutable_data_ptr<float>();
  each_part(values.numel(), tasks,
            [&](std::int64_t begin, std::int64_t count) { load_f32(source + begin * (dtype_bits(dtype) / 8), dtype, count, out + begin); });
  return result;
}

bool is_finite(const at::Tensor& values, TaskPool& tasks) {
  const float* data = values.const_data_ptr<float>();
  std::atomic<bool> finite = true;
  each_part(values.numel(), tasks, [&](std::int64_t begin, std::int64_t count) {
    if (!std::isfinite(largest_magnitude(data + begin, count))) finite = false;
  });
  return finite;
}

std::string kind_name(const LoraEntry& entry) {
  if (entry.has(AdapterPart::magnitude)) return "dora";
  switch (entry.kind) {
    case LoraKind::low_rank:
      return "lora";
    case LoraKind::hadamard:
      return "loha";
    case LoraKind::kronecker:
      return "lokr";
    case LoraKind::difference:
      return "diff";
    case LoraKind::none:
      break;
  }
  return "bias";
}

const char* source_name(AlphaSource source) {
  return source == AlphaSource::tensor ? "tensor" : source == AlphaSource::metadata ? "metadata" : "rank";
}

}  // namespace

double dampening(std::size_t i) { return std::pow(kDampening, static_cast<double>(i)); }

LoraToMerge parse_lora_to_merge(const std::string& text) {
  if (text.empty()) throw Error(ErrorKind::usage, "the name of a LoRA is empty; name a file");
  LoraToMerge result{text};
  const std::size_t colon = text.rfind(':');
  std::error_code ignored;
  if (colon == std::string::npos || colon == 0 || std::filesystem::exists(result.file, ignored)) return result;
  char* end = nullptr;
  const std::string number = text.substr(colon + 1);
  const double strength = std::strtod(number.c_str(), &end);
  // What is no number is part of the name, and opening it says that there is no such file.
  if (number.empty() || *end != '\0' || std::isspace(static_cast<unsigned char>(number.front())) != 0) return result;
  if (!std::isfinite(strength))
    throw Error(ErrorKind::usage, fmt::format("the strength of '{}' is '{}'; allowed: a number", text.substr(0, colon), number));
  return {text.substr(0, colon), strength};
}

struct Merge::File {
  File(const std::filesystem::path& path, std::unique_ptr<TensorSource> source, const LayerNames& names)
      : lora(path, std::move(source), names), alphas(lora) {}

  LoraFile lora;
  LoraAlphas alphas;
};

struct Merge::Change {
  std::size_t file = 0;
  const LoraEntry* entry = nullptr;
  bool is_bias = false;
  double scale = 1;  // alpha / rank
};

struct Merge::Target {
  TensorInfo info;
  std::vector<Change> changes;  // in the order of the files
};

namespace {

void require_finite(double number, const std::string& what) {
  if (!std::isfinite(number)) throw Error(ErrorKind::usage, fmt::format("the {} is {}; allowed: a number", what, number));
}

}  // namespace

struct Merge::Matching {
  const TensorSource& model;
  const File& file;
  std::size_t number;  // of the file
  const MergeOptions& options;
  std::map<std::size_t, std::string> changed;     // layers, by place in the model
  std::map<std::size_t, std::string> mismatched;  // those with a change of another size
  std::set<std::size_t> affected;                 // places of those whose change is not multiplied by 0
  std::vector<std::string> lost;
  bool is_recognised;  // the model
};

Merge::Merge(const OpenFile& open, const TensorSource& model, const MergeOptions& options, const KnownModel& known) {
  require_finite(options.scale, "scale of LoRAs");
  if (!options.strengths.empty() && options.strengths.size() != options.paths.size())
    throw Error(ErrorKind::usage, fmt::format("there are {} LoRAs and {} strengths", options.paths.size(), options.strengths.size()));
  account_.scale = options.scale;
  account_.dampened = options.dampen && options.paths.size() > 1;
  const std::vector<ModelLayer> layers = model_layers(model);
  const LayerNames names(named_layers(model, layers), known);
  for (std::size_t i = 0; i < options.paths.size(); ++i) {
    const double own = options.strengths.empty() ? 1 : options.strengths[i];
    require_finite(own, fmt::format("strength of '{}'", options.paths[i].string()));
    MergedLora& merged = account_.files.emplace_back();
    merged.file = options.paths[i];
    merged.strength = options.scale * own * (account_.dampened ? dampening(i) : 1);
    const File& file = *files_.emplace_back(std::make_unique<File>(options.paths[i], open(options.paths[i]), names));
    merged.unmatched = file.lora.unmatched();
    merged.for_other_models = file.lora.for_other_models();
    Matching matching{model, file, i, options, {}, {}, {}, file.lora.lost(), known.kind != ModelKind::unknown};
    try {
      for (const LoraEntry& entry : file.lora.entries()) match(entry, layers[entry.place.layer], matching);
      for (const auto& [place, base] : matching.changed) merged.layers.push_back(base);
      for (const auto& [place, base] : matching.mismatched) merged.mismatched.push_back(base);
      merged.unaffected = static_cast<std::size_t>(std::count_if(matching.changed.begin(), matching.changed.end(), [&](const auto& each) {
        return merged.strength == 0 || !matching.affected.contains(each.first);
      }));
      require_complete(merged, matching);
    } catch (Error& error) {
      throw file.lora.located(error);
    }
  }
}

Merge::~Merge() = default;

void Merge::match(const LoraEntry& entry, const ModelLayer& layer, Matching& matching) {
  MergedLora& merged = account_.files[matching.number];
  const LoraFile& lora = matching.file.lora;
  const bool changes_weight = entry.kind != LoraKind::none && layer.weight;
  const bool changes_bias = entry.has(AdapterPart::diff_b) && layer.bias;
  const std::size_t place = layer.weight ? *layer.weight : *layer.bias;
  const auto fits = [&](std::size_t tensor, bool is_bias) {
    const std::optional<std::string> wrong = misfit(lora, entry, is_bias, matching.model.tensors()[tensor]);
    if (!wrong) return true;
    if (!matching.options.skip_mismatched)
      throw Error(ErrorKind::input, *wrong,
                  "use a LoRA of this model, or leave out layers of other sizes with `merge_lora_skip_mismatched` (docs/lora.md)");
    return false;
  };
  if ((changes_weight && !fits(*layer.weight, false)) || (changes_bias && !fits(*layer.bias, true))) {
    matching.mismatched.emplace(place, layer.base);
    return;
  }
  for (const auto& [part, tensor] : entry.parts)
    if (part == AdapterPart::diff_b ? !layer.bias.has_value() : !changes_weight) {
      merged.unmatched.push_back(lora.info(tensor).name);
      if (part != AdapterPart::alpha) matching.lost.push_back(lora.info(tensor).name);
    }
  const auto add = [&](std::size_t tensor, bool is_bias, double scale) {
    Target& target = targets_[tensor];
    target.info = matching.model.tensors()[tensor];
    target.changes.push_back({matching.number, &entry, is_bias, scale});
  };
  if (!changes_weight && !changes_bias) return;
  matching.changed.emplace(place, layer.base);
  if (changes_weight) {
    const LoraAlpha alpha = matching.file.alphas.of(entry);
    add(*layer.weight, false, alpha.scale());
    ++merged.kinds[kind_name(entry)];
    if (alpha.source != AlphaSource::none) ++merged.alpha[source_name(alpha.source)];
    if (alpha.scale() != 0 || entry.has(AdapterPart::magnitude)) matching.affected.insert(place);
  }
  if (!changes_bias) return;
  add(*layer.bias, true, 1);
  matching.affected.insert(place);
  if (!changes_weight) ++merged.kinds["bias"];
}

// Throws when nothing of the file is merged, or less than all of it that is meant for this model.
void Merge::require_complete(const MergedLora& merged, const Matching& matching) {
  if (merged.layers.empty()) {
    std::string why;
    if (!merged.mismatched.empty())
      why = fmt::format(": '{}' and all others have other sizes", merged.mismatched.front());
    else if (!merged.unmatched.empty())
      why = fmt::format(": it has '{}'", merged.unmatched.front());
    else if (!merged.for_other_models.empty())
      why =
          fmt::format(": it is for {}, as '{}' says", fmt::join(matching.file.lora.other_models(), ", "), merged.for_other_models.front());
    throw Error(ErrorKind::input, "it changes no layer of the model" + why,
                fmt::format("use a LoRA of this model{} (docs/lora.md)",
                            matching.is_recognised ? "" : "; the model is not recognised, so that only its own names of layers are known"));
  }
  if (matching.lost.empty() || matching.options.partial) return;
  const std::size_t others = matching.lost.size() - 1;
  throw Error(ErrorKind::input,
              fmt::format("'{}'{} of no layer of the model, so only a part of the LoRA would be merged", matching.lost.front(),
                          others == 0   ? " is"
                          : others == 1 ? " and 1 more tensor are"
                                        : fmt::format(" and {} more tensors are", others)),
              fmt::format("use a LoRA of this model, or merge the part that fits with `merge_lora_partial`{} (docs/lora.md)",
                          matching.is_recognised ? "" : "; the model is not recognised, so that only its own names of layers are known"));
}

std::string Merge::identity() const {
  std::string text;
  for (const std::unique_ptr<File>& file : files_) text += header_hash(file->lora.source()) + "\n";
  return text;
}

bool Merge::changes(std::size_t index) const { return targets_.contains(index); }

std::vector<std::size_t> Merge::files_of(std::size_t index) const {
  std::vector<std::size_t> files;
  if (const auto found = targets_.find(index); found != targets_.end())
    for (const Change& change : found->second.changes)
      if (files.empty() || files.back() != change.file) files.push_back(change.file);
  return files;
}

std::uint64_t Merge::working_bytes(std::size_t index) const {
  const auto found = targets_.find(index);
  if (found == targets_.end()) return 0;
  const TensorInfo& target = found->second.info;
  std::int64_t largest = 0;
  for (const Change& change : found->second.changes) {
    std::int64_t values = 0;
    for (const auto& [part, tensor] : change.entry->parts) values += files_[change.file]->lora.info(tensor).elements();
    // The second factor of LoKr is made whole.
    if (change.entry->kind == LoraKind::kronecker) values += target.elements();
    largest = std::max(largest, values);
  }
  return sizeof(float) * static_cast<std::uint64_t>(largest + (target.dtype == DType::f32 ? 0 : target.elements()));
}

at::Tensor Merge::apply(std::size_t index, at::Tensor values, BufferPool& buffers, TaskPool& tasks) const {
  const auto found = targets_.find(index);
  if (found == targets_.end()) throw Error(ErrorKind::internal, "nothing is to be merged into this tensor");
  const TensorInfo& target = found->second.info;
  if (target.dtype != DType::f32) values = as_f32(values, buffers, tasks);
  const bool was_finite = is_finite(values, tasks);
  const at::Tensor matrix = values.view({rows_of(target.shape), columns_of(target.shape)});
  const ParallelLoop parallel = [&](std::int64_t count, const std::function<void(std::int64_t)>& body) { tasks.parallel(count, body); };
  try {
    for (const Change& change : found->second.changes) {
      const LoraFile& lora = files_[change.file]->lora;
      const double strength = account_.files[change.file].strength;
      const std::vector<std::int64_t> shape = changed_shape(*change.entry, target);
      // The rows that have changed are a weight of their own: norms are theirs.
      const std::optional<RowRange>& range = change.entry->place.rows;
      at::Tensor rows = range ? matrix.narrow(0, range->first, range->count) : matrix;
      if (change.is_bias) {
        add_change(rows, *load_bias_change(lora, *change.entry, rows_of(shape)), 1, strength, nullptr, parallel);
        continue;
      }
      const LoadedChange loaded = load_change(lora, *change.entry, shape);
      add_change(rows, *loaded.change, change.scale, strength, loaded.magnitude ? &*loaded.magnitude : nullptr, parallel);
    }
    if (was_finite && !is_finite(values, tasks))
      throw Error(ErrorKind::numeric, fmt::format("merged with '{}' it has values beyond the range of F32", lora_names(found->second)),
                  "merge with a smaller `merge_lora_scale`, or another LoRA");
  } catch (Error& error) {
    throw error.in(fmt::format("tensor '{}'", target.name));
  }
  return values;
}

std::string Merge::lora_names(const Target& target) const {
  std::string names;
  for (const Change& change : target.changes)
    names += fmt::format("{}{}", names.empty() ? "" : "', '", account_.files[change.file].file.string());
  return names;
}

}  // namespace qmill
