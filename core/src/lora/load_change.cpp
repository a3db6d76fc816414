#include "lora/load_change.h"

#include "lora/change_shape.h"

#include <ATen/ops/cat.h>

namespace qmill {
namespace {

at::Tensor as_matrix(const at::Tensor& tensor, std::int64_t rows) { return tensor.reshape({rows, -1}).contiguous(); }

bool is_swapped(const LoraEntry& entry) { return entry.place.rows && entry.place.rows->halves_swapped; }

}  // namespace

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
  if (is_swapped(entry)) {
    loaded.change = halves_swapped(std::move(loaded.change));
    if (at::Tensor norms = loaded.magnitude ? loaded.magnitude->norms : at::Tensor(); norms.defined() && loaded.magnitude->of_rows) {
      const std::int64_t half = norms.size(0) / 2;
      loaded.magnitude->norms = at::cat({norms.narrow(0, half, half), norms.narrow(0, 0, half)});
    }
  }
  return loaded;
}

std::unique_ptr<WeightChange> load_bias_change(const LoraFile& file, const LoraEntry& entry, std::int64_t values) {
  std::unique_ptr<WeightChange> change = plain_change(as_matrix(file.matrix(entry, AdapterPart::diff_b), values));
  return is_swapped(entry) ? halves_swapped(std::move(change)) : std::move(change);
}

}  // namespace qmill
