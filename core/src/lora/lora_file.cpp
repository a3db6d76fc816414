#include "lora/lora_file.h"

#include "lora/change_shape.h"

#include <qmill/error.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

// Integers, too: an alpha may be one.
bool is_real(DType dtype) { return dtype_bits(dtype) >= 8 && dtype != DType::boolean && dtype != DType::c64; }

std::string text(const TensorInfo& info) { return fmt::format("'{}' {} {}", info.name, dtype_name(info.dtype), info.shape_text()); }

// The kinds of change that the parts belong to; there may be one.
std::vector<LoraKind> kinds_of(const LoraEntry& entry) {
  using enum AdapterPart;
  std::vector<LoraKind> kinds;
  const auto has_any = [&](std::initializer_list<AdapterPart> parts) {
    return std::any_of(parts.begin(), parts.end(), [&](AdapterPart part) { return entry.has(part); });
  };
  if (has_any({down, up, mid})) kinds.push_back(LoraKind::low_rank);
  if (has_any({hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b, hada_t1, hada_t2})) kinds.push_back(LoraKind::hadamard);
  if (has_any({lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2})) kinds.push_back(LoraKind::kronecker);
  if (has_any({diff})) kinds.push_back(LoraKind::difference);
  return kinds;
}

// Checks of one entry against itself; what they throw names tensors.
class Checker {
 public:
  Checker(const LoraFile& file, const LoraEntry& entry) : file_(file), entry_(entry) {}

  void low_rank() const {
    using enum AdapterPart;
    require_partners({down, up});
    const TensorInfo& a = info(down);
    const TensorInfo& b = info(up);
    bool fits = a.shape.size() >= 2 && b.shape.size() >= 2 && b.elements() == b.shape[0] * b.shape[1];
    std::string expected = "[rank, K] and [N, rank]";
    if (entry_.has(mid)) {
      const TensorInfo& m = info(mid);
      fits = fits && m.shape.size() >= 2 && a.elements() == a.shape[0] * a.shape[1] && m.shape[0] == b.shape[1] && m.shape[1] == a.shape[0];
      expected = fmt::format("[rank, C] and [N, rank] around {}", text(m));
    } else {
      fits = fits && a.shape[0] == b.shape[1];
    }
    if (!fits) reject(fmt::format("{} and {} are no low-rank pair, expected floating {}", text(a), text(b), expected));
  }

  void hadamard() const {
    using enum AdapterPart;
    require_partners({hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b});
    if (entry_.has(hada_t1) || entry_.has(hada_t2)) {
      require_partners({hada_t1, hada_t2});
      require_core(hada_t1, hada_w1_a, hada_w1_b);
      require_core(hada_t2, hada_w2_a, hada_w2_b);
    } else {
      require_product(hada_w1_a, hada_w1_b);
      require_product(hada_w2_a, hada_w2_b);
    }
  }

  void kronecker() const {
    using enum AdapterPart;
    if (entry_.has(lokr_w1) == (entry_.has(lokr_w1_a) || entry_.has(lokr_w1_b))) reject_factor("lokr_w1");
    if (entry_.has(lokr_w2) == (entry_.has(lokr_w2_a) || entry_.has(lokr_w2_b))) reject_factor("lokr_w2");
    if (entry_.has(lokr_w1)) require_matrix(lokr_w1);
    if (!entry_.has(lokr_w1)) require_partners({lokr_w1_a, lokr_w1_b}), require_product(lokr_w1_a, lokr_w1_b);
    if (entry_.has(lokr_w2)) {
      if (info(lokr_w2).shape.size() < 2) reject(fmt::format("{} is no matrix", text(info(lokr_w2))));
      if (entry_.has(lokr_t2)) reject_factor("lokr_w2");
    } else {
      require_partners({lokr_w2_a, lokr_w2_b});
      if (entry_.has(lokr_t2))
        require_core(lokr_t2, lokr_w2_a, lokr_w2_b);
      else
        require_product(lokr_w2_a, lokr_w2_b);
    }
  }

  void all() const {
    for (const auto& [part, tensor] : entry_.parts) {
      const TensorInfo& each = file_.info(tensor);
      if (part == AdapterPart::unsupported)
        throw Error(ErrorKind::unsupported, fmt::format("'{}' is of a kind of adapter that cannot be merged", each.name),
                    "merge it with the program that made it, or leave the file out (docs/lora.md)");
      const bool is_alpha = part == AdapterPart::alpha;
      if (!(is_alpha ? is_real(each.dtype) : is_floating(each.dtype)) || each.elements() == 0)
        reject(fmt::format("{} is no part of a layer's change, expected floating values", text(each)));
      if (part == AdapterPart::alpha && each.elements() != 1) reject(fmt::format("{} is no alpha, expected one value", text(each)));
    }
  }

  [[noreturn]] void reject(std::string message) const { throw Error(ErrorKind::input, std::move(message), "the file is damaged"); }

  void require_partners(std::initializer_list<AdapterPart> parts) const {
    if (std::all_of(parts.begin(), parts.end(), [&](AdapterPart part) { return entry_.has(part); })) return;
    const auto there = std::find_if(parts.begin(), parts.end(), [&](AdapterPart part) { return entry_.has(part); });
    const TensorInfo& alone = there != parts.end() ? info(*there) : file_.info(entry_.parts.rbegin()->second);
    throw Error(ErrorKind::input, fmt::format("'{}' has no partner", alone.name),
                fmt::format("a layer needs {} such matrices; the file is incomplete", parts.size()));
  }

 private:
  const TensorInfo& info(AdapterPart part) const { return file_.info(entry_, part); }

  void require_matrix(AdapterPart part) const {
    if (info(part).shape.size() != 2) reject(fmt::format("{} is no matrix", text(info(part))));
  }

  // [N, rank] and [rank, K].
  void require_product(AdapterPart a, AdapterPart b) const {
    require_matrix(a), require_matrix(b);
    if (info(a).shape[1] != info(b).shape[0])
      reject(fmt::format("{} and {} have no product, expected [N, rank] and [rank, K]", text(info(a)), text(info(b))));
  }

  // A core [i, j, ...] between factors [i, N] and [j, C].
  void require_core(AdapterPart core, AdapterPart a, AdapterPart b) const {
    require_matrix(a), require_matrix(b);
    const std::vector<std::int64_t>& shape = info(core).shape;
    if (shape.size() < 3 || shape[0] != info(a).shape[0] || shape[1] != info(b).shape[0])
      reject(fmt::format("{} does not fit between {} and {}", text(info(core)), text(info(a)), text(info(b))));
  }

  [[noreturn]] void reject_factor(std::string_view factor) const {
    throw Error(ErrorKind::input, fmt::format("'{}' has not exactly one of {} and its two factors", entry_.name, factor),
                "the file is incomplete");
  }

  const LoraFile& file_;
  const LoraEntry& entry_;
};

}  // namespace

void LoraFile::check(const LoraEntry& entry) const {
  const Checker checker(*this, entry);
  checker.all();
  switch (entry.kind) {
    case LoraKind::low_rank:
      return checker.low_rank();
    case LoraKind::hadamard:
      return checker.hadamard();
    case LoraKind::kronecker:
      return checker.kronecker();
    case LoraKind::difference:
    case LoraKind::none:
      if (entry.has(AdapterPart::magnitude)) checker.require_partners({AdapterPart::magnitude, AdapterPart::down, AdapterPart::up});
      return;
  }
}

LoraFile::LoraFile(const std::filesystem::path& path, std::unique_ptr<TensorSource> source, const LayerNames& layers)
    : path_(path), source_(std::move(source)) {
  try {
    Entries by_name = collect_parts(layers);
    place_all(by_name, layers);
    refuse_overlaps(layers);
  } catch (Error& error) {
    throw located(error);
  }
}

LoraFile::Entries LoraFile::collect_parts(const LayerNames& layers) {
  Entries by_name;
  const std::vector<TensorInfo>& tensors = source_->tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::optional<AdapterName> name = parse_adapter_name(tensors[i].name);
    if (!name) {
      place_unknown_tensor(tensors[i], layers);
      continue;
    }
    LoraEntry& entry = by_name[name->layer];
    entry.name = name->layer;
    const auto [part, is_new] = entry.parts.emplace(name->part, i);
    if (!is_new && name->part != AdapterPart::unsupported)
      throw Error(ErrorKind::input,
                  fmt::format("'{}' and '{}' are the same matrix of one layer", tensors[part->second].name, tensors[i].name),
                  "the file holds several adapters; store one per file");
    if (!is_new) unmatched_.push_back(tensors[i].name);  // one of them is enough to refuse the layer
  }
  return by_name;
}

void LoraFile::place_unknown_tensor(const TensorInfo& tensor, const LayerNames& layers) {
  const Resolution whole = layers.resolve(tensor.name);
  if (whole.is_for_other_model) {
    for_other_models_.push_back(tensor.name);
    other_models_.insert(component_text(whole.component));
    return;
  }
  unmatched_.push_back(tensor.name);
  if (tensor.name.starts_with("bundle_emb") || tensor.name.starts_with("emb_params")) return;
  // "LAYER.scale", "LAYER.lora.scale"
  const std::string parent = tensor.name.substr(0, tensor.name.rfind('.'));
  const bool is_of_layer = layers.resolve(parent).place || layers.resolve(parent.substr(0, parent.rfind('.'))).place;
  if (tensor.elements() != 1 || is_of_layer) lost_.push_back(tensor.name);
}

void LoraFile::add_to(std::vector<std::string>& names, const LoraEntry& entry) const {
  for (const auto& [part, tensor] : entry.parts) names.push_back(info(tensor).name);
}

void LoraFile::set_aside(const LoraEntry& entry) {
  add_to(for_other_models_, entry);
  other_models_.insert(component_text(entry.component));
}

void LoraFile::place_all(Entries& by_name, const LayerNames& layers) {
  std::vector<LoraEntry> without_place;
  for (auto& [name, entry] : by_name) {
    const Resolution found = layers.resolve(name);
    entry.component = found.component;
    const bool is_alpha_alone = entry.parts.size() == 1 && entry.has(AdapterPart::alpha);
    if (found.is_for_other_model) {
      set_aside(entry);
    } else if (is_alpha_alone) {
      add_to(unmatched_, entry);
    } else if (found.place) {
      entry.place = *found.place;
      const std::vector<LoraKind> kinds = kinds_of(entry);
      if (kinds.size() > 1)
        throw Error(ErrorKind::input, fmt::format("'{}' has parts of {} kinds of adapters", name, kinds.size()), "the file is damaged");
      if (!kinds.empty()) entry.kind = kinds.front();
      check(entry);
      entries_.push_back(std::move(entry));
    } else {
      without_place.push_back(std::move(entry));
    }
  }
  if (layers.may_be_any_text_encoder()) drop_other_text_encoders(layers);
  // What the names of the other entries say that this model is.
  std::set<ModelKind> kinds;
  std::set<int> encoders;
  for (const LoraEntry& entry : entries_) {
    kinds.insert(entry.component.kind);
    if (entry.component.kind == ModelKind::text_encoder) encoders.insert(entry.component.number);
  }
  for (const LoraEntry& entry : without_place) {
    const Component& said = entry.component;
    const bool is_other_kind = !layers.is_known() && said.kind != ModelKind::unknown && !kinds.contains(said.kind);
    const bool is_other_encoder =
        layers.may_be_any_text_encoder() && said.kind == ModelKind::text_encoder && !encoders.contains(said.number);
    if (is_other_kind || is_other_encoder) {
      set_aside(entry);
    } else {
      add_to(unmatched_, entry);
      add_to(lost_, entry);
    }
  }
}

// A file for several text encoders names their layers alike: those are meant whose sizes fit.
void LoraFile::drop_other_text_encoders(const LayerNames& layers) {
  std::map<int, bool> fits;  // by number
  for (const LoraEntry& entry : entries_) {
    if (entry.component.kind != ModelKind::text_encoder) continue;
    const NamedLayer& layer = layers.layer(entry.place.layer);
    const auto [height, width] = change_shape(*this, entry);
    const bool is_sized = layer.rows != 0 && height != 0;
    const std::int64_t rows = entry.place.rows ? entry.place.rows->count : layer.rows;
    bool& fit = fits[entry.component.number];
    fit = fit || !is_sized || (height == rows && width == layer.columns);
  }
  const bool any_fits = std::any_of(fits.begin(), fits.end(), [](const auto& each) { return each.second; });
  std::erase_if(entries_, [&](const LoraEntry& entry) {
    const int number = entry.component.number;
    const bool is_other = entry.component.kind == ModelKind::text_encoder && !fits[number] && (any_fits || number > 1);
    if (is_other) set_aside(entry);
    return is_other;
  });
}

void LoraFile::refuse_overlaps(const LayerNames& layers) const {
  struct Rows {
    std::int64_t first, end;
    const LoraEntry* entry;
  };
  std::map<std::size_t, std::vector<Rows>> by_layer;
  for (const LoraEntry& entry : entries_) {
    const RowRange all{0, std::numeric_limits<std::int64_t>::max(), false};
    const RowRange rows = entry.place.rows.value_or(all);
    by_layer[entry.place.layer].push_back({rows.first, rows.first + rows.count, &entry});
  }
  for (auto& [layer, parts] : by_layer) {
    std::sort(parts.begin(), parts.end(), [](const Rows& a, const Rows& b) { return a.first < b.first; });
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (parts[i].first >= parts[i - 1].end) continue;
      const std::string both = fmt::format("'{}' and '{}'", parts[i - 1].entry->name, parts[i].entry->name);
      const bool are_whole = !parts[i - 1].entry->place.rows && !parts[i].entry->place.rows;
      throw Error(ErrorKind::input,
                  are_whole ? fmt::format("{} are both the layer '{}'", both, layers.bases()[layer])
                            : fmt::format("{} both change row {} of the layer '{}'", both, parts[i].first, layers.bases()[layer]),
                  "keep one of them");
    }
  }
}

Error LoraFile::located(Error error) const { return error.in(fmt::format("'{}'", path_.string())); }

at::Tensor LoraFile::matrix(std::size_t tensor) const {
  const TensorInfo& info = source_->tensors()[tensor];
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
  source_->read(tensor, bytes);
  at::Tensor values = at::empty(info.shape, at::kFloat);
  if (!is_floating(info.dtype)) {  // an alpha
    at::Tensor integers = at::empty(info.shape, scalar_type(info.dtype));
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(integers.mutable_data_ptr()));
    return integers.to(at::kFloat);
  }
  load_f32(bytes.data(), info.dtype, info.elements(), values.mutable_data_ptr<float>());
  if (!std::isfinite(largest_magnitude(values.const_data_ptr<float>(), info.elements())))
    throw located(Error(ErrorKind::input, fmt::format("'{}' has values that are not finite", info.name), "the file is damaged"));
  return values;
}

}  // namespace qmill
