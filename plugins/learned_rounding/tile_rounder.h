// Rows of latent values to codes and errors, for every grid and every layout of scales.
#pragma once

#include <qmill/layer_context.h>
#include <qmill/numerics/tile_codes.h>

namespace learned_rounding {

// Rows that make a task, and a product on one thread: their number depends on nothing, so neither do the results.
inline constexpr std::int64_t kSliceRows = 192;

inline std::int64_t slices(std::int64_t rows) { return (rows + kSliceRows - 1) / kSliceRows; }

// A weight F32 [N,K] and the codes for its scales. Borrows the weight. Const functions are [any-thread].
class TileRounder {
 public:
  TileRounder(const at::Tensor& weight, const qmill::TileScales& scales, const qmill::Grid& grid, const qmill::Layout& layout)
      : weight_(weight), codes_(grid, layout, weight.size(1), scales) {}

  std::int64_t rows() const { return weight_.size(0); }
  std::int64_t columns() const { return codes_.columns(); }
  const at::Tensor& weight() const { return weight_; }
  const float* weight(std::int64_t row) const { return weight_.const_data_ptr<float>() + row * columns(); }
  const qmill::TileCodes& codes() const { return codes_; }
  float decoded(std::int64_t row, std::int64_t column, int code) const { return codes_.value(row, column, code); }

  // The codes nearest to weight - shift; `shift` is overwritten.
  void round_shifted(std::int64_t row, float* shift, std::int8_t* codes) const;
  // decoded - weight.
  void errors(std::int64_t row, const std::int8_t* codes, float* out) const;

 private:
  const at::Tensor& weight_;
  const qmill::TileCodes codes_;
};

// decoded - weight of all rows, F32 [N,K].
at::Tensor all_errors(const TileRounder& rounder, const at::Tensor& codes, qmill::LayerContext& context);

// Sums of squares per row of a F32 matrix, added up in the order of rows.
double squared_norm(const at::Tensor& matrix, qmill::LayerContext& context);

at::Tensor matrix(std::int64_t rows, std::int64_t columns, qmill::LayerContext& context);

}  // namespace learned_rounding
