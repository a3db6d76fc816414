#include <qmill/numerics/rounding.h>

#include <qmill/error.h>
#include <qmill/numerics/grid_rounder.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/numerics/tile_codes.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <vector>

namespace qmill {
namespace {

// Enough work to outweigh handing it to a thread, little enough to share a layer among all of them.
constexpr std::int64_t kValuesPerTask = 1 << 17;

struct RowTasks {
  std::int64_t rows;
  std::int64_t rows_per_task;

  RowTasks(std::int64_t row_count, std::int64_t columns)
      : rows(row_count), rows_per_task(std::max<std::int64_t>(1, kValuesPerTask / std::max<std::int64_t>(1, columns))) {}

  std::int64_t count() const { return (rows + rows_per_task - 1) / rows_per_task; }

  // body(row, thread-local scratch of `columns` values), each row once.
  template <class Body>
  void run(LayerContext& context, std::int64_t columns, Body body) const {
    context.parallel(count(), [&](std::int64_t task) {
      context.check_cancelled();
      thread_local std::vector<float> scratch;
      scratch.resize(static_cast<std::size_t>(columns));
      const std::int64_t end = std::min(rows, (task + 1) * rows_per_task);
      for (std::int64_t row = task * rows_per_task; row < end; ++row) body(row, scratch.data());
    });
  }
};

// A weight [N,K] as rows of F32, rotated on the way.
struct Rows {
  const std::byte* data;
  DType dtype;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t rotation_group;

  Rows(const at::Tensor& weight, std::int64_t group)
      : data(static_cast<const std::byte*>(weight.const_data_ptr())),
        dtype(dtype_of(weight)),
        rows(weight.size(0)),
        columns(weight.size(1)),
        rotation_group(group) {}

  void load(std::int64_t row, float* out) const {
    load_f32(data + row * columns * (dtype_bits(dtype) / 8), dtype, columns, out);
    if (rotation_group != 0) rotate_groups(out, columns, rotation_group);
  }
};

[[noreturn]] void reject_values(const Rows& source) {
  std::vector<float> row(static_cast<std::size_t>(source.columns));
  std::int64_t count = 0;
  std::string first;
  for (std::int64_t r = 0; r < source.rows; ++r) {
    load_f32(source.data + r * source.columns * (dtype_bits(source.dtype) / 8), source.dtype, source.columns, row.data());
    for (std::int64_t c = 0; c < source.columns; ++c) {
      const float value = row[static_cast<std::size_t>(c)];
      if (std::isfinite(value)) continue;
      if (count++ == 0) first = fmt::format("{} at row {}, column {}", std::isnan(value) ? "NaN" : "infinity", r, c);
    }
  }
  if (count == 0)
    throw Error(ErrorKind::numeric, "values are so large that their rotation is beyond the range of F32",
                "store this layer without rotation, or keep it with `exclude_layers`");
  throw Error(ErrorKind::numeric, fmt::format("{} of {} values are not finite (first: {})", count, source.rows * source.columns, first),
              "repair the source, or keep this layer as it is with `exclude_layers`");
}

void require_finite(const std::atomic<bool>& finite, const Rows& source) {
  if (!finite) reject_values(source);
}

std::array<std::int64_t, 2> scales_shape(std::int64_t rows, std::int64_t columns, const Layout& layout) {
  return {(rows + layout.tile_rows - 1) / layout.tile_rows, (columns + layout.tile_columns - 1) / layout.tile_columns};
}

// The largest of what the rows of each band ask for: `of_rows` [N, width] into `of_bands` [bands, width].
void join_bands(const float* of_rows, std::int64_t rows, std::int64_t width, std::int64_t tile_rows, float* of_bands) {
  for (std::int64_t band = 0; band * tile_rows < rows; ++band) {
    const std::int64_t end = std::min(rows, (band + 1) * tile_rows);
    for (std::int64_t i = 0; i < width; ++i) {
      float largest = 0;
      for (std::int64_t row = band * tile_rows; row < end; ++row) largest = std::max(largest, of_rows[row * width + i]);
      of_bands[band * width + i] = largest;
    }
  }
}

WishedScales measure_scales(const Rows& source, const Grid& grid, const Layout& layout, LayerContext& context) {
  const std::array<std::int64_t, 2> shape = scales_shape(source.rows, source.columns, layout);
  const std::int64_t tiles = shape[1];
  static const class : public ScaleGrid {
    at::Tensor stored(const at::Tensor& wished, const at::Tensor&) const override { return wished; }
  } any_scale;
  const ScaleGrid& scale_grid = grid.scale_grid == nullptr ? any_scale : *grid.scale_grid;
  const auto of_rows = [&](std::int64_t width) { return context.allocate(std::array{source.rows, width}, DType::f32); };
  const at::Tensor scales = of_rows(tiles), peaks = of_rows(1);
  auto* wished = scales.mutable_data_ptr<float>();
  auto* peak = peaks.mutable_data_ptr<float>();
  std::atomic<bool> finite = true;
  RowTasks(source.rows, source.columns).run(context, source.columns, [&](std::int64_t row, float* values) {
    source.load(row, values);
    peak[row] = scale_grid.wish(values, source.columns, layout.tile_columns, grid, wished + row * tiles);
    if (!std::isfinite(peak[row])) finite = false;
  });
  require_finite(finite, source);
  const auto of_bands = [&](const at::Tensor& found, std::int64_t width) {
    if (layout.tile_rows == 1) return found;
    at::Tensor joined = context.allocate(std::array{shape[0], width}, DType::f32);
    join_bands(found.const_data_ptr<float>(), source.rows, width, layout.tile_rows, joined.mutable_data_ptr<float>());
    return joined;
  };
  WishedScales result{of_bands(scales, tiles)};
  if (grid.scale_grid != nullptr) result.peaks = of_bands(peaks, 1).view({shape[0]});
  return result;
}

// Codes for scales that are known.
CodedWeight round_rows(const Rows& source, const TileScales& scales, const Grid& grid, const Layout& layout, LayerContext& context) {
  CodedWeight coded{context.allocate(std::array{source.rows, source.columns}, DType::i8), scales.values, {}, scales.common};
  auto* codes = coded.codes.mutable_data_ptr<std::int8_t>();
  const TileCodes tiles(grid, layout, source.columns, scales);
  RowTasks(source.rows, source.columns).run(context, source.columns, [&](std::int64_t row, float* values) {
    source.load(row, values);
    tiles.round(row, values, codes + row * source.columns);
  });
  return coded;
}

}  // namespace

float scale_for(float largest_magnitude, const Grid& grid) { return std::max(largest_magnitude / grid.largest(), kSmallestScale); }

at::Tensor to_stored_basis(const at::Tensor& weight, const Layout& layout, LayerContext& context) {
  const Rows source(weight, layout.rotation_group);
  const std::array<std::int64_t, 2> shape = {source.rows, source.columns};
  at::Tensor rotated = context.allocate(shape, DType::f32);
  auto* out = rotated.mutable_data_ptr<float>();
  std::atomic<bool> finite = true;
  RowTasks(source.rows, source.columns).run(context, 0, [&](std::int64_t row, float*) {
    float* values = out + row * source.columns;
    source.load(row, values);
    if (!std::isfinite(largest_magnitude(values, source.columns))) finite = false;
  });
  require_finite(finite, source);
  return rotated;
}

WishedScales wished_scales(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context) {
  return measure_scales(Rows(weight, 0), grid, layout, context);
}

TileScales tile_scales(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context) {
  return stored_scales(wished_scales(weight, grid, layout, context), grid);
}

CodedWeight round_to_nearest(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context) {
  const Rows source(weight, layout.rotation_group);
  const std::int64_t columns = source.columns;
  const bool is_one_pass = layout.tile_rows == 1 && layout.tile_columns >= columns && grid.scale_grid == nullptr;  // one scale per row
  if (!is_one_pass) return round_rows(source, stored_scales(measure_scales(source, grid, layout, context), grid), grid, layout, context);

  CodedWeight coded{context.allocate(std::array{source.rows, columns}, DType::i8),
                    context.allocate(scales_shape(source.rows, columns, layout), DType::f32)};
  auto* codes = coded.codes.mutable_data_ptr<std::int8_t>();
  auto* scales = coded.scales.mutable_data_ptr<float>();
  const GridRounder rounder(grid);
  std::atomic<bool> finite = true;
  RowTasks(source.rows, columns).run(context, columns, [&](std::int64_t row, float* values) {
    source.load(row, values);
    const float largest = largest_magnitude(values, columns);
    if (!std::isfinite(largest)) finite = false;
    scales[row] = scale_for(largest, grid);
    rounder.round(values, columns, scales[row], codes + row * columns);
  });
  require_finite(finite, source);
  return coded;
}

CodedWeight round_onto(const at::Tensor& weight, const TileScales& scales, const Grid& grid, const Layout& layout, LayerContext& context) {
  return round_rows(Rows(weight, 0), scales, grid, layout, context);
}

at::Tensor coding_errors(const at::Tensor& weight, const CodedWeight& coded, const Grid& grid, const Layout& layout,
                         LayerContext& context) {
  const std::int64_t columns = weight.size(1);
  at::Tensor errors = context.allocate(std::array{weight.size(0), columns}, DType::f32);
  const TileCodes tiles(grid, layout, columns, {coded.scales, coded.common_scale});
  const auto* w = weight.const_data_ptr<float>();
  const auto* codes = coded.codes.const_data_ptr<std::int8_t>();
  auto* out = errors.mutable_data_ptr<float>();
  for (std::int64_t row = 0; row < weight.size(0); ++row, w += columns, codes += columns, out += columns) {
    tiles.decode(row, codes, out);
    for (std::int64_t k = 0; k < columns; ++k) out[k] = w[k] - out[k];
  }
  return errors;
}

}  // namespace qmill
