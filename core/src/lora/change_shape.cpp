#include "lora/change_shape.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace qmill {

std::int64_t rows_of(const std::vector<std::int64_t>& shape) { return shape.empty() ? 1 : shape[0]; }

std::int64_t columns_of(const std::vector<std::int64_t>& shape) {
  return shape.empty() ? 1 : std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
}

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

bool halves_agree(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  if (entry.kind != LoraKind::hadamard) return true;
  const auto shape = [&](AdapterPart part) -> const std::vector<std::int64_t>& { return file.info(entry, part).shape; };
  const std::size_t side = entry.has(hada_t1) ? 1 : 0;
  const bool cores_agree = !entry.has(hada_t1) ||
                           (std::equal(shape(hada_t1).begin() + 2, shape(hada_t1).end(), shape(hada_t2).begin() + 2, shape(hada_t2).end()));
  return shape(hada_w1_a)[side] == shape(hada_w2_a)[side] && shape(hada_w1_b)[1] == shape(hada_w2_b)[1] && cores_agree;
}

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

}  // namespace qmill
