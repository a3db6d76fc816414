// Rows of latent values to codes and errors, for every grid and every layout of scales.
#pragma once

#include <qmill/layer_context.h>
#include <qmill/numerics/grid_rounder.h>

namespace learned_rounding {

// Rows that make a task, and a product on one thread: their number depends on nothing, so neither do the results.
inline constexpr std::int64_t kSliceRows = 192;

inline std::int64_t slices(std::int64_t rows) { return (rows + kSliceRows - 1) / kSliceRows; }

// Of one weight F32 [N,K] with scales F32, one per tile. Borrows all that it is given. Const functions are [any-thread].
class TileRounder {
 public:
  TileRounder(const at::Tensor& weight, const at::Tensor& scales, const qmill::Grid& grid, const qmill::Layout& layout);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  const qmill::Grid& grid() const { return grid_; }
  const float* weight(std::int64_t row) const { return weight_ + row * columns_; }
  float scale(std::int64_t row, std::int64_t column) const { return scales_[row / tile_rows_ * tiles_ + column / tile_columns_]; }
  float decoded(std::int64_t row, std::int64_t column, int code) const { return grid_.value(code) * scale(row, column); }

  // The codes nearest to weight - shift; `shift` is overwritten.
  void round_shifted(std::int64_t row, float* shift, std::int8_t* codes) const;
  // decoded - weight.
  void errors(std::int64_t row, const std::int8_t* codes, float* out) const;

 private:
  template <class Run>
  void for_runs(std::int64_t row, Run run) const;

  const float* weight_;
  const float* scales_;
  const qmill::Grid& grid_;
  const qmill::GridRounder rounder_;
  const std::int64_t rows_;
  const std::int64_t columns_;
  const std::int64_t tile_rows_;
  const std::int64_t tile_columns_;
  const std::int64_t tiles_;
};

// decoded - weight of all rows, F32 [N,K].
at::Tensor all_errors(const TileRounder& rounder, const at::Tensor& codes, qmill::LayerContext& context);

// Sums of squares per row of a F32 matrix, added up in the order of rows.
double squared_norm(const at::Tensor& matrix, qmill::LayerContext& context);

at::Tensor matrix(std::int64_t rows, std::int64_t columns, qmill::LayerContext& context);

}  // namespace learned_rounding
