#include "lora/fit.h"

#include "lora/change_shape.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

std::string with_shape(const TensorInfo& info) { return fmt::format("'{}' {}", info.name, info.shape_text()); }

// The first tensor of the entry's own, to name it by.
const TensorInfo& first_tensor(const LoraFile& file, const LoraEntry& entry) {
  using enum AdapterPart;
  for (const AdapterPart part : {down, hada_w1_a, lokr_w1, lokr_w1_a, diff, diff_b})
    if (entry.has(part)) return file.info(entry, part);
  return file.info(entry.parts.begin()->second);
}

std::string text_of_rows(const LoraEntry& entry, const TensorInfo& target) {
  const std::optional<RowRange>& rows = entry.place.rows;
  if (!rows || rows->count == rows_of(target.shape)) return with_shape(target);
  return fmt::format("rows {} to {} of {}", rows->first, rows->first + rows->count - 1, with_shape(target));
}

}  // namespace

std::vector<std::int64_t> changed_shape(const LoraEntry& entry, const TensorInfo& target) {
  std::vector<std::int64_t> shape = target.shape;
  if (entry.place.rows && !shape.empty()) shape[0] = entry.place.rows->count;
  return shape;
}

std::optional<std::string> misfit(const LoraFile& file, const LoraEntry& entry, bool is_bias, const TensorInfo& target) {
  using enum AdapterPart;
  if (!is_floating(target.dtype))
    throw Error(ErrorKind::unsupported, fmt::format("'{}' changes '{}', which is {}", entry.name, target.name, dtype_name(target.dtype)),
                "merge into the model before it is quantized");
  const TensorInfo& own = is_bias ? file.info(entry, diff_b) : first_tensor(file, entry);
  const auto wrong = [&](const std::string& found) {
    return fmt::format("{} makes {}, but {} of the model is to change", with_shape(own), found, text_of_rows(entry, target));
  };
  const std::vector<std::int64_t> shape = changed_shape(entry, target);
  const std::int64_t rows = rows_of(shape), columns = columns_of(shape);
  // The range was made for the weight; a bias may have fewer rows.
  const std::optional<RowRange>& range = entry.place.rows;
  if (range && range->first + range->count > rows_of(target.shape)) return wrong("a change of rows beyond the last");
  if (is_bias || entry.kind == LoraKind::difference) {
    if (own.elements() != rows * columns || rows_of(own.shape) != rows) return wrong(own.shape_text());
    return std::nullopt;
  }
  const auto [height, width] = change_shape(file, entry);
  if (!halves_agree(file, entry)) return wrong("two factors of different shapes");
  if (shape.size() < 2 || height != rows || width != columns) return wrong(fmt::format("a change of {} x {}", height, width));
  if (entry.has(mid) && file.info(entry, down).shape[1] != shape[1]) return wrong(fmt::format("a change of {} x {}", height, width));
  if (!entry.has(magnitude) || magnitude_of_rows(file.info(entry, magnitude), shape)) return std::nullopt;
  return fmt::format("{} has no norm for every row or column of {} of the model", with_shape(file.info(entry, magnitude)),
                     text_of_rows(entry, target));
}

}  // namespace qmill
