#include "lora/merge.h"

#include "model/content_hash.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numeric>

namespace qmill {
namespace {

constexpr double kDampening = 0.9;
constexpr std::string_view kBias = ".bias";
constexpr std::int64_t kValuesPerTask = 1 << 20;

struct Layers {
  explicit Layers(const TensorSource& model) {
    const std::vector<TensorInfo>& tensors = model.tensors();
    std::map<std::string, std::size_t> by_base;
    const auto layer = [&](const std::string& base) -> ModelLayer& {
      const auto [found, is_new] = by_base.emplace(base, layers.size());
      if (is_new) bases.push_back(base), layers.push_back({base, {}, {}});
      return layers[found->second];
    };
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::string& name = tensors[i].name;
      if (const std::string base = layer_base(name); base != name)
        layer(base).weight = i;
      else if (name.ends_with(kBias) && name.size() > kBias.size())
        layer(name.substr(0, name.size() - kBias.size())).bias = i;
    }
    // Parameters that are no ".weight" are layers of their own, unless there is one.
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::string& name = tensors[i].name;
      if (layer_base(name) != name || name.ends_with(kBias)) continue;
      if (ModelLayer& own = layer(name); !own.weight) own.weight = i;
    }
  }

  std::vector<std::string> bases;
  std::vector<ModelLayer> layers;  // by base
};

std::int64_t rows_of(const std::vector<std::int64_t>& shape) { return shape.empty() ? 1 : shape[0]; }

std::int64_t columns_of(const std::vector<std::int64_t>& shape) {
  return shape.empty() ? 1 : std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
}

at::Tensor as_matrix(const at::Tensor& tensor, std::int64_t rows) { return tensor.reshape({rows, -1}).contiguous(); }

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

std::string with_shape(const TensorInfo& info) { return fmt::format("'{}' {}", info.name, info.shape_text()); }

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

// Rows and columns of the change that an entry makes, from headers.
std::pair<std::int64_t, std::int64_t> change_shape(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  const auto shape = [&](AdapterPart part) -> const std::vector<std::int64_t>& { return file.info(entry, part).shape; };
  const auto width = [&](AdapterPart part) { return columns_of(shape(part)); };
  // Of a core [i, j, ...], values per pair.
  const auto inner = [&](AdapterPart core) { return width(core) / shape(core)[1]; };
  switch (entry.kind) {
    case LoraKind::low_rank:
      return {shape(up)[0], width(down) * (entry.has(mid) ? inner(mid) : 1)};
    case LoraKind::hadamard:
      if (entry.has(hada_t1)) return {shape(hada_w1_a)[1], shape(hada_w1_b)[1] * inner(hada_t1)};
      return {shape(hada_w1_a)[0], shape(hada_w1_b)[1]};
    case LoraKind::kronecker: {
      const std::int64_t height = entry.has(lokr_w1) ? shape(lokr_w1)[0] : shape(lokr_w1_a)[0];
      const std::int64_t factors = entry.has(lokr_w1) ? shape(lokr_w1)[1] : shape(lokr_w1_b)[1];
      if (entry.has(lokr_w2)) return {height * shape(lokr_w2)[0], factors * width(lokr_w2)};
      if (entry.has(lokr_t2)) return {height * shape(lokr_w2_a)[1], factors * shape(lokr_w2_b)[1] * inner(lokr_t2)};
      return {height * shape(lokr_w2_a)[0], factors * shape(lokr_w2_b)[1]};
    }
    case LoraKind::difference:
      return {rows_of(shape(diff)), width(diff)};
    case LoraKind::none:
      break;
  }
  return {0, 0};
}

// Both factors of a Hadamard product have the shape of the change.
bool halves_agree(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  if (entry.kind != LoraKind::hadamard) return true;
  const auto shape = [&](AdapterPart part) -> const std::vector<std::int64_t>& { return file.info(entry, part).shape; };
  const std::size_t side = entry.has(hada_t1) ? 1 : 0;
  const bool cores_agree = !entry.has(hada_t1) ||
                           (std::equal(shape(hada_t1).begin() + 2, shape(hada_t1).end(), shape(hada_t2).begin() + 2, shape(hada_t2).end()));
  return shape(hada_w1_a)[side] == shape(hada_w2_a)[side] && shape(hada_w1_b)[1] == shape(hada_w2_b)[1] && cores_agree;
}

// The first tensor of the entry's own, to name it by.
const TensorInfo& first_tensor(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  for (const AdapterPart part : {down, hada_w1_a, lokr_w1, lokr_w1_a, diff, diff_b})
    if (entry.has(part)) return file.info(entry, part);
  return file.info(entry.parts.begin()->second);
}

// Whether a magnitude of this shape is of rows; nothing: of neither. PEFT stores norms of rows only.
std::optional<bool> magnitude_of_rows(const TensorInfo& magnitude, const std::vector<std::int64_t>& shape) {
  if (shape.size() < 2) return std::nullopt;
  const std::int64_t rows = shape[0], columns = shape[1];
  const std::vector<std::int64_t>& own = magnitude.shape;
  const bool leads = own.empty() || own[0] != 1 || own.size() == 1;  // the first dimension counts something, or there is but one
  const bool is_peft = magnitude.name.find(".lora_magnitude_vector") != std::string::npos;
  if (magnitude.elements() == rows && (is_peft || leads || rows == 1)) return true;
  const bool may_be_columns = own.size() == 1 || (own.size() >= 2 && own[0] == 1 && own[1] == columns);
  if (!is_peft && magnitude.elements() == columns && may_be_columns) return false;
  return std::nullopt;
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

LoadedChange load_change(const LoraFile& file, const LoraEntry& entry, const std::vector<std::int64_t>& shape) {
  using enum AdapterPart;
  const auto matrix = [&](AdapterPart part) { return file.matrix(entry, part); };
  // A product as one matrix: the factors of LoKr are small.
  const auto product = [&](AdapterPart a, AdapterPart b) {
    at::Tensor result = matrix(a).new_empty({file.info(entry, a).shape[0], file.info(entry, b).shape[1]});
    low_rank_change(matrix(a), matrix(b))->compute(0, result.size(0), result.mutable_data_ptr<float>());
    return result;
  };
  // The two factors of a product with a core between them: [i, N] turned, and [i, ...].
  const auto turned = [&](AdapterPart a) { return matrix(a).t().contiguous(); };
  LoadedChange loaded;
  switch (entry.kind) {
    case LoraKind::low_rank: {
      const at::Tensor a = matrix(down);
      const at::Tensor first = as_matrix(a, a.size(0));
      const at::Tensor b = matrix(up);
      loaded.change = low_rank_change(as_matrix(b, b.size(0)), entry.has(mid) ? contract_core(matrix(mid), first) : first);
      break;
    }
    case LoraKind::hadamard:
      if (entry.has(hada_t1))
        loaded.change = hadamard_change(turned(hada_w1_a), contract_core(matrix(hada_t1), matrix(hada_w1_b)), turned(hada_w2_a),
                                        contract_core(matrix(hada_t2), matrix(hada_w2_b)));
      else
        loaded.change = hadamard_change(matrix(hada_w1_a), matrix(hada_w1_b), matrix(hada_w2_a), matrix(hada_w2_b));
      break;
    case LoraKind::kronecker: {
      const at::Tensor w1 = entry.has(lokr_w1) ? matrix(lokr_w1) : product(lokr_w1_a, lokr_w1_b);
      at::Tensor w2;
      if (entry.has(lokr_w2)) {
        w2 = matrix(lokr_w2);
        w2 = as_matrix(w2, w2.size(0));
      } else if (entry.has(lokr_t2)) {
        const at::Tensor second = contract_core(matrix(lokr_t2), matrix(lokr_w2_b));
        const at::Tensor first = turned(lokr_w2_a);
        w2 = first.new_empty({first.size(0), second.size(1)});
        low_rank_change(first, second)->compute(0, w2.size(0), w2.mutable_data_ptr<float>());
      } else {
        w2 = product(lokr_w2_a, lokr_w2_b);
      }
      loaded.change = kronecker_change(w1, w2);
      break;
    }
    case LoraKind::difference:
      loaded.change = plain_change(as_matrix(matrix(diff), rows_of(shape)));
      break;
    case LoraKind::none:
      break;
  }
  if (entry.has(magnitude))
    loaded.magnitude = Magnitude{matrix(magnitude).reshape({-1}), *magnitude_of_rows(file.info(entry, magnitude), shape)};
  return loaded;
}

namespace {

void require_finite(double number, const std::string& what) {
  if (!std::isfinite(number)) throw Error(ErrorKind::usage, fmt::format("the {} is {}; allowed: a number", what, number));
}

// Throws when the change does not fit the tensor.
void check_fit(const LoraFile& file, const LoraEntry& entry, bool is_bias, const TensorInfo& target) {
  using enum AdapterPart;
  if (!is_floating(target.dtype))
    throw Error(ErrorKind::unsupported, fmt::format("'{}' changes '{}', which is {}", entry.name, target.name, dtype_name(target.dtype)),
                "merge into the model before it is quantized");
  const TensorInfo& own = is_bias ? file.info(entry, diff_b) : first_tensor(file, entry);
  const auto reject = [&](const std::string& found) {
    throw Error(ErrorKind::input, fmt::format("{} makes {}, but {} of the model is to change", with_shape(own), found, with_shape(target)),
                "use a LoRA of this model");
  };
  const std::int64_t rows = rows_of(target.shape), columns = columns_of(target.shape);
  if (is_bias || entry.kind == LoraKind::difference) {
    if (own.elements() != target.elements() || rows_of(own.shape) != rows) reject(own.shape_text());
    return;
  }
  const auto [height, width] = change_shape(file, entry);
  if (!halves_agree(file, entry)) reject("two factors of different shapes");
  if (target.shape.size() < 2 || height != rows || width != columns) reject(fmt::format("a change of {} x {}", height, width));
  if (entry.has(mid) && file.info(entry, down).shape[1] != target.shape[1]) reject(fmt::format("a change of {} x {}", height, width));
  if (!entry.has(magnitude) || magnitude_of_rows(file.info(entry, magnitude), target.shape)) return;
  throw Error(ErrorKind::input,
              fmt::format("{} has no norm for every row or column of {} of the model", with_shape(file.info(entry, magnitude)), with_shape(target)),
              "use a LoRA of this model");
}

}  // namespace

Merge::Merge(const OpenFile& open, const TensorSource& model, const MergeOptions& options) {
  require_finite(options.scale, "scale of LoRAs");
  if (!options.strengths.empty() && options.strengths.size() != options.paths.size())
    throw Error(ErrorKind::usage, fmt::format("there are {} LoRAs and {} strengths", options.paths.size(), options.strengths.size()));
  account_.scale = options.scale;
  account_.dampened = options.dampen && options.paths.size() > 1;
  const Layers layers(model);
  const LayerNames names(layers.bases);
  for (std::size_t i = 0; i < options.paths.size(); ++i) {
    const double own = options.strengths.empty() ? 1 : options.strengths[i];
    require_finite(own, fmt::format("strength of '{}'", options.paths[i].string()));
    MergedLora& merged = account_.files.emplace_back();
    merged.file = options.paths[i];
    merged.strength = options.scale * own * (account_.dampened ? dampening(i) : 1);
    const File& file = *files_.emplace_back(std::make_unique<File>(options.paths[i], open(options.paths[i]), names));
    merged.unmatched = file.lora.unmatched();
    std::map<std::size_t, std::string> changed;  // by place in the model
    for (const LoraEntry& entry : file.lora.entries()) match(model, file, entry, i, layers.layers[entry.layer], changed);
    for (const auto& [place, base] : changed) merged.layers.push_back(base);
    if (merged.layers.empty())
      throw file.lora.located(Error(ErrorKind::input,
                                    fmt::format("it changes no layer of the model{}",
                                                merged.unmatched.empty() ? "" : fmt::format(": it has '{}'", merged.unmatched.front())),
                                    "use a LoRA of this model, with its layers' names (docs/lora.md)"));
  }
}

Merge::~Merge() = default;

void Merge::match(const TensorSource& model, const File& file, const LoraEntry& entry, std::size_t number, const ModelLayer& layer,
                  std::map<std::size_t, std::string>& changed) {
  MergedLora& merged = account_.files[number];
  const auto add = [&](std::size_t tensor, bool is_bias, double scale) {
    Target& target = targets_[tensor];
    target.info = model.tensors()[tensor];
    try {
      check_fit(file.lora, entry, is_bias, target.info);
    } catch (Error& error) {
      throw file.lora.located(error);
    }
    target.changes.push_back({number, &entry, is_bias, scale});
  };
  const bool changes_weight = entry.kind != LoraKind::none && layer.weight;
  for (const auto& [part, tensor] : entry.parts)
    if (part == AdapterPart::diff_b ? !layer.bias.has_value() : !changes_weight) merged.unmatched.push_back(file.lora.info(tensor).name);
  if (changes_weight) {
    const LoraAlpha alpha = file.alphas.of(entry);
    add(*layer.weight, false, alpha.scale());
    ++merged.kinds[kind_name(entry)];
    if (alpha.source != AlphaSource::none) ++merged.alpha[source_name(alpha.source)];
  }
  const bool changes_bias = entry.has(AdapterPart::diff_b) && layer.bias;
  if (changes_bias) add(*layer.bias, true, 1);
  if (changes_bias && !changes_weight) ++merged.kinds["bias"];
  if (changes_weight || changes_bias) changed.emplace(changes_weight ? *layer.weight : *layer.bias, layer.base);
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
    for (const Change& change : found->second.changes) files.push_back(change.file);
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
  const std::int64_t rows = rows_of(target.shape);
  if (target.dtype != DType::f32) values = as_f32(values, buffers, tasks);
  const bool was_finite = is_finite(values, tasks);
  at::Tensor matrix = values.view({rows, columns_of(target.shape)});
  const ParallelLoop parallel = [&](std::int64_t count, const std::function<void(std::int64_t)>& body) { tasks.parallel(count, body); };
  try {
    for (const Change& change : found->second.changes) {
      const LoraFile& lora = files_[change.file]->lora;
      const double strength = account_.files[change.file].strength;
      if (change.is_bias) {
        add_change(matrix, *plain_change(as_matrix(lora.matrix(*change.entry, AdapterPart::diff_b), rows)), 1, strength, nullptr, parallel);
        continue;
      }
      const LoadedChange loaded = load_change(lora, *change.entry, target.shape);
      add_change(matrix, *loaded.change, change.scale, strength, loaded.magnitude ? &*loaded.magnitude : nullptr, parallel);
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
