// The innermost loop of LDLQ: a few columns of a few rows, vectorized over the rows.
#pragma once

#include "grid_table.h"

namespace qmill {

inline constexpr std::int64_t kFeedbackRows = 16;  // rows that go together

// Arrays are [columns][stride]: the values of one column lie together. A call works on kFeedbackRows rows of them.
struct FeedbackBlock {
  const Grid* grid;
  const GridTable* table;  // of that grid; null: integers
  std::int64_t columns;
  std::int64_t stride;
  float* weights;             // in: w; out: w - q
  const float* feedback;      // what the columns before this block contribute
  const float* coefficients;  // [columns][coefficient_stride]: row k, column j < k is U_jk
  std::int64_t coefficient_stride;
  const double* pivots;       // [columns]
  const float* scales;        // of column k at k * scale_stride
  std::int64_t scale_stride;  // 0: every column has the same
  const float* const* levels = nullptr;  // of column k: [codes][kFeedbackRows], what codes are worth in each row; null: value times scale
  std::int8_t* codes;
  double* objectives;  // [kFeedbackRows], added to
};

void round_block(const FeedbackBlock& block);

}  // namespace qmill
