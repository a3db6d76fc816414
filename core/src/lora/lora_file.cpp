#include "lora_file.h"

#include <qmill/error.h>
#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <array>
#include <cmath>

namespace qmill {
namespace {

enum class Part { down, up, alpha };

struct PartName {
  std::string layer;
  Part part;
};

// "a.q.lora_A.default.weight" -> a.q, down. Nothing: the tensor is no part of a low-rank pair.
std::optional<PartName> parse(std::string_view name) {
  if (name.ends_with(".alpha")) return PartName{std::string(name.substr(0, name.size() - 6)), Part::alpha};
  constexpr std::array<std::pair<std::string_view, Part>, 6> kMarks = {{{".lora_A", Part::down},
                                                                        {".lora_B", Part::up},
                                                                        {".lora_down", Part::down},
                                                                        {".lora_up", Part::up},
                                                                        {".lora.down", Part::down},
                                                                        {".lora.up", Part::up}}};
  for (const auto& [mark, part] : kMarks) {
    const std::size_t at = name.rfind(mark);
    if (at == std::string_view::npos || at == 0) continue;
    // What follows: ".weight", or the name of an adapter between dots, or nothing.
    std::string_view rest = name.substr(at + mark.size());
    if (rest.ends_with(".weight")) rest.remove_suffix(7);
    if (!rest.empty() && (rest.front() != '.' || rest.find('.', 1) != std::string_view::npos)) continue;
    return PartName{std::string(name.substr(0, at)), part};
  }
  return std::nullopt;
}

std::optional<std::size_t> find(const LayerNames& layers, const std::string& name) {
  if (const auto found = layers.find(layer_base(name))) return found;
  constexpr std::array<std::string_view, 6> kPrefixes = {"lora_unet_", "lora_transformer_", "lora_te1_",
                                                         "lora_te2_",  "lora_te3_",         "lora_te_"};
  for (const std::string_view prefix : kPrefixes)
    if (name.starts_with(prefix)) return layers.find_underscored(std::string_view(name).substr(prefix.size()));
  return std::nullopt;
}

}  // namespace

LoraFile::LoraFile(const Host& host, const std::filesystem::path& path, const LayerNames& layers) : path_(path), source_(host.open(path)) {
  struct Parts {
    std::optional<std::size_t> part[3];
  };
  std::map<std::string, Parts> by_name;
  const std::vector<TensorInfo>& tensors = source_->tensors();
  try {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::optional<PartName> name = parse(tensors[i].name);
      if (!name) {
        unmatched_.push_back(tensors[i].name);
        continue;
      }
      std::optional<std::size_t>& part = by_name[name->layer].part[static_cast<int>(name->part)];
      if (part)
        throw Error(ErrorKind::input, fmt::format("'{}' and '{}' are the same matrix of one layer", tensors[*part].name, tensors[i].name),
                    "the file holds several adapters; store one per file");
      part = i;
    }
    for (const auto& [name, parts] : by_name) {
      const auto& [down, up, alpha] = parts.part;
      const std::optional<std::size_t> layer = find(layers, name);
      const bool is_pair = down || up;
      if (!layer || !is_pair) {
        for (const std::optional<std::size_t>& part : parts.part)
          if (part) unmatched_.push_back(tensors[*part].name);
        continue;
      }
      if (!down || !up)
        throw Error(ErrorKind::input, fmt::format("'{}' has no partner", tensors[down ? *down : *up].name),
                    "a LoRA has two matrices per layer; the file is incomplete");
      const TensorInfo& a = tensors[*down];
      const TensorInfo& b = tensors[*up];
      const bool fits = a.shape.size() >= 2 && b.shape.size() >= 2 && a.shape[0] == b.shape[1] && a.elements() != 0 && b.elements() != 0 &&
                        is_floating(a.dtype) && is_floating(b.dtype) && (!alpha || tensors[*alpha].elements() == 1);
      if (!fits)
        throw Error(ErrorKind::input,
                    fmt::format("'{}' {} {} and '{}' {} {} are no low-rank pair, expected floating [rank, K] and [N, rank]", a.name,
                                dtype_name(a.dtype), a.shape_text(), b.name, dtype_name(b.dtype), b.shape_text()),
                    "the file is damaged");
      if (const auto [other, is_new] = by_layer_.emplace(*layer, pairs_.size()); !is_new)
        throw Error(ErrorKind::input,
                    fmt::format("'{}' and '{}' are both the layer '{}'", pairs_[other->second].name, name, layers.bases()[*layer]),
                    "keep one of them");
      pairs_.push_back({name, *layer, *down, *up, alpha});
    }
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", path.string()));
  }
}

std::optional<std::size_t> LoraFile::pair_of(std::size_t layer) const {
  const auto found = by_layer_.find(layer);
  return found == by_layer_.end() ? std::nullopt : std::optional(found->second);
}

at::Tensor LoraFile::matrix(std::size_t tensor) const {
  const TensorInfo& info = source_->tensors()[tensor];
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
  source_->read(tensor, bytes);
  at::Tensor values = at::empty(info.shape, at::kFloat);
  load_f32(bytes.data(), info.dtype, info.elements(), values.mutable_data_ptr<float>());
  if (!std::isfinite(largest_magnitude(values.const_data_ptr<float>(), info.elements())))
    throw Error(ErrorKind::input, fmt::format("'{}' has values that are not finite", info.name), "the file is damaged")
        .in(fmt::format("'{}'", path_.string()));
  return values;
}

}  // namespace qmill
