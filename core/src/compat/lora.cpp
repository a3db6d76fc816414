// The public functions about LoRA files and single tensors.
#include <qmill/compat/lora.h>

#include "model/finite.h"
#include "lora/lora_alpha.h"
#include "lora/merge.h"
#include "lora/weight_change.h"

#include <qmill/core/default_host.h>
#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace qmill {
namespace {

// The layers that a file is about, as there is no model to ask.
LayerNames own_layers(const TensorSource& source) {
  std::set<std::string> bases;
  for (const TensorInfo& tensor : source.tensors())
    if (const std::optional<AdapterName> name = parse_adapter_name(tensor.name)) bases.insert(layer_base(name->layer));
  return LayerNames({bases.begin(), bases.end()});
}

LoraFile open(const Host& host, const std::filesystem::path& file) {
  std::unique_ptr<TensorSource> source = host.open(file);
  const LayerNames layers = own_layers(*source);
  LoraFile lora(file, std::move(source), layers);
  if (lora.entries().empty())
    throw lora.located(Error(ErrorKind::input, "it has no LoRA matrices", "give a LoRA, with names such as LAYER.lora_A.weight"));
  return lora;
}

// By name in the file, or without the prefixes of wrappers where that is nobody else's.
std::map<std::string, const LoraEntry*> by_layer(const LoraFile& lora) {
  std::map<std::string, std::size_t> uses;
  const auto name = [](const LoraEntry& entry) { return std::string(without_prefixes(layer_base(entry.name))); };
  for (const LoraEntry& entry : lora.entries()) ++uses[name(entry)];
  std::map<std::string, const LoraEntry*> layers;
  for (const LoraEntry& entry : lora.entries()) layers.emplace(uses[name(entry)] == 1 ? name(entry) : entry.name, &entry);
  return layers;
}

Error wrong(std::string message) { return Error(ErrorKind::usage, std::move(message), "see qmill/compat/lora.h"); }

at::Tensor as_factor(const at::Tensor& tensor, std::int64_t rows) { return tensor.to(at::kFloat).reshape({rows, -1}).contiguous(); }

void add_lora(at::Tensor& matrix, const LoraConfig& lora, double strength) {
  const auto is_factor = [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.dim() >= 2 && tensor.numel() != 0 && at::isFloatingType(tensor.scalar_type());
  };
  if (!is_factor(lora.lora_A) || !is_factor(lora.lora_B)) throw wrong("lora_A and lora_B must be floating matrices");
  if (lora.rank < 1) throw wrong(fmt::format("rank is {}; allowed: 1 or more", lora.rank));
  if (!std::isfinite(lora.alpha) || !std::isfinite(strength))
    throw wrong(fmt::format("alpha is {} and the scale {}; allowed: numbers", lora.alpha, strength));
  const at::Tensor down = as_factor(lora.lora_A, lora.lora_A.size(0));
  const at::Tensor up = as_factor(lora.lora_B, lora.lora_B.size(0));
  if (up.size(1) != down.size(0) || up.size(0) != matrix.size(0) || down.size(1) != matrix.size(1))
    throw wrong(fmt::format("lora_B {} x {} and lora_A {} x {} make no change of {} x {}", up.size(0), up.size(1), down.size(0),
                            down.size(1), matrix.size(0), matrix.size(1)));
  const ParallelLoop in_order = [](std::int64_t tasks, const std::function<void(std::int64_t)>& body) {
    for (std::int64_t i = 0; i < tasks; ++i) body(i);
  };
  add_change(matrix, *low_rank_change(up, down), lora.alpha / static_cast<double>(lora.rank), strength, nullptr, in_order);
}

}  // namespace

std::map<std::string, at::Tensor> load_lora_tensors(const Host& host, const std::filesystem::path& file) {
  const LoraFile lora = open(host, file);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, entry] : by_layer(lora))
    if (entry->kind == LoraKind::low_rank) tensors.emplace(name, lora.matrix(*entry, AdapterPart::down));
  if (tensors.empty())
    throw lora.located(Error(ErrorKind::input, "it has no pair of LoRA matrices", "give a LoRA, with names such as LAYER.lora_A.weight"));
  return tensors;
}

std::map<std::string, LoraData> load_lora_for_merging(const Host& host, const std::filesystem::path& file) {
  using enum AdapterPart;
  const LoraFile lora = open(host, file);
  const LoraAlphas alphas(lora);
  std::map<std::string, LoraData> layers;
  for (const auto& [name, entry] : by_layer(lora)) {
    if (entry->kind != LoraKind::low_rank || entry->has(magnitude) || entry->has(diff_b))
      throw lora.located(Error(ErrorKind::unsupported, fmt::format("'{}' is more than a product of two matrices", entry->name),
                               "the conversion merges it (MergeOptions)"));
    LoraData data;
    data.lora_A = lora.matrix(*entry, down);
    data.lora_B = lora.matrix(*entry, up);
    data.rank = data.lora_A.size(0);
    if (entry->has(mid)) {
      data.lora_A = contract_core(lora.matrix(*entry, mid), data.lora_A.reshape({data.rank, -1}));
      const double scale = alphas.of(*entry).scale();
      data.rank = data.lora_A.size(0);
      data.alpha = scale * static_cast<double>(data.rank);
    } else {
      data.alpha = alphas.of(*entry).alpha;
    }
    layers.emplace(name, std::move(data));
  }
  return layers;
}

std::map<std::string, at::Tensor> load_lora_tensors(const std::filesystem::path& file) { return load_lora_tensors(default_host(), file); }

std::map<std::string, LoraData> load_lora_for_merging(const std::filesystem::path& file) {
  return load_lora_for_merging(default_host(), file);
}

at::Tensor merge_lora_into_weight(const at::Tensor& weight, const at::Tensor& lora_A, const at::Tensor& lora_B, double alpha,
                                  std::int64_t rank, double scale) {
  return merge_multiple_loras(weight, {{lora_A, lora_B, alpha, rank, scale}}, false);
}

at::Tensor merge_multiple_loras(const at::Tensor& weight, const std::vector<LoraConfig>& loras, bool dampen) {
  if (!weight.defined() || weight.dim() < 2 || weight.numel() == 0 || !at::isFloatingType(weight.scalar_type()))
    throw wrong("the weight must be floating and have two dimensions or more");
  at::Tensor values = weight.contiguous().to(at::kFloat, false, true);
  at::Tensor matrix = values.view({weight.size(0), -1});
  for (std::size_t i = 0; i < loras.size(); ++i) add_lora(matrix, loras[i], loras[i].scale * (dampen ? dampening(i) : 1));
  at::Tensor result = values.to(weight.scalar_type());
  if (!is_finite(result) && is_finite(weight))
    throw Error(ErrorKind::numeric, "the merged weight has values beyond the range of its type", "merge with a smaller scale");
  return result;
}

}  // namespace qmill
