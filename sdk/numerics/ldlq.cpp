#include <qmill/numerics/ldlq.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/tile_codes.h>

#include "feedback_kernel.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

namespace qmill {
namespace {

// Columns between two wide products. Chosen for speed, as kSliceRows is. Both are constants, not shares of the number of threads: so the
// results do not depend on that either.
constexpr std::int64_t kOuterColumns = 512;

at::Tensor matrix(float* data, std::int64_t rows, std::int64_t columns) {
  return at::from_blob(data, {rows, columns}, at::TensorOptions().dtype(at::kFloat));
}

// Where the columns, in the order of the factor, are cut: between wide products, and between those of a block.
struct Cuts {
  std::vector<std::int64_t> outer, inner;  // ends; the outer ones are inner ones, too

  // Of so many columns; an outer block begins a new inner one.
  static Cuts even(std::int64_t columns, std::int64_t block_columns) {
    Cuts cuts;
    const std::int64_t outer_columns = std::max(block_columns, kOuterColumns);
    for (std::int64_t outer = 0; outer < columns; outer += outer_columns) {
      const std::int64_t end = std::min(columns, outer + outer_columns);
      for (std::int64_t first = outer; first < end; first += block_columns) cuts.inner.push_back(std::min(end, first + block_columns));
      cuts.outer.push_back(end);
    }
    return cuts;
  }

  // At the ends of tiles.
  static Cuts between_tiles(const std::vector<std::int64_t>& order, std::int64_t tile_columns) {
    Cuts cuts;
    const auto columns = static_cast<std::int64_t>(order.size());
    std::int64_t outer = 0;
    for (std::int64_t end = 1; end <= columns; ++end) {
      if (end < columns && order[static_cast<std::size_t>(end)] / tile_columns == order[static_cast<std::size_t>(end - 1)] / tile_columns) continue;
      cuts.inner.push_back(end);
      if (end < columns && end - outer < kOuterColumns) continue;
      cuts.outer.push_back(end);
      outer = end;
    }
    return cuts;
  }

  static std::int64_t longest(const std::vector<std::int64_t>& ends) {
    std::int64_t longest = 0, begin = 0;
    for (const std::int64_t end : ends) {
      longest = std::max(longest, end - begin);
      begin = end;
    }
    return longest;
  }
};

// What all slices of a weight share.
struct Problem {
  const at::Tensor& weight;
  const Grid& grid;
  const GridTable* table;  // null: integers
  const Layout& layout;
  const HessianFactor& factor;
  std::vector<TileCodes> tiles;  // of each candidate; one: the scales are given
  Cuts cuts;

  std::int64_t columns() const { return weight.size(1); }
  int codes() const { return grid.highest - grid.lowest + 1; }
};

// Some rows of a weight. Its arrays are [K][rows], columns in the order of the factor, so that every loop runs along rows and the
// products take both operands as they lie.
class Slice {
 public:
  Slice(const Problem& problem, std::int64_t begin, std::int64_t end)
      : problem_(problem),
        columns_(problem.columns()),
        begin_(begin),
        rows_(end - begin),
        stride_((rows_ + kFeedbackRows - 1) / kFeedbackRows * kFeedbackRows),
        same_along_row_(problem.layout.tile_columns >= columns_) {
    thread_local Scratch scratch;
    scratch_ = &scratch;
    const std::int64_t longest = Cuts::longest(problem.cuts.inner);
    const auto resize = [](auto& values, std::int64_t count) { values.resize(static_cast<std::size_t>(count)); };
    resize(scratch.errors, columns_ * stride_);
    resize(scratch.codes, columns_ * stride_);
    resize(scratch.feedback, Cuts::longest(problem.cuts.outer) * stride_);
    // Rows that only fill up a vector: zeros, with any scale.
    scratch.scales.assign(static_cast<std::size_t>((same_along_row_ ? 1 : longest) * stride_), 1.0f);
    scratch.objectives.assign(static_cast<std::size_t>(stride_), 0.0);
    if (problem.tiles.front().rounds_values()) {
      scratch.levels.assign(static_cast<std::size_t>(longest * problem.codes() * kFeedbackRows), 0.0f);
      resize(scratch.levels_of_columns, longest);
    }
    resize(scratch.best, longest);  // of a choice of scales
    load(problem.weight.const_data_ptr<float>() + begin * columns_);
  }

  // `chosen`: F32 [N, tiles], for the scales of the candidates that were taken; null: they are given.
  void round(float* chosen) {
    std::int64_t outer = 0;
    auto inner_end = problem_.cuts.inner.begin();
    for (const std::int64_t outer_end : problem_.cuts.outer) {
      at::Tensor feedback = matrix(scratch_->feedback.data(), outer_end - outer, stride_);
      if (outer == 0)
        feedback.zero_();
      else
        at::mm_out(feedback, coefficients(outer, outer_end, 0, outer), errors(0, outer));
      for (std::int64_t first = outer; first < outer_end; ++inner_end) {
        const std::int64_t last = *inner_end;
        at::Tensor target = feedback.narrow(0, first - outer, last - first);
        if (first != outer) at::addmm_out(target, target, coefficients(first, last, outer, first), errors(outer, first));
        if (chosen == nullptr)
          round_columns(first, last, target.const_data_ptr<float>());
        else
          choose_and_round(first, last, target.const_data_ptr<float>(), chosen);
        first = last;
      }
      outer = outer_end;
    }
  }

  void store(std::int8_t* codes, double* objectives) const {
    // A few rows at a time: each is written from end to end while its lines are in the cache.
    for (std::int64_t group = 0; group < rows_; group += kFeedbackRows)
      for (std::int64_t k = 0; k < columns_; ++k) {
        const std::int64_t column = column_of(k);
        const std::int8_t* in = scratch_->codes.data() + k * stride_;
        for (std::int64_t row = group; row < std::min(rows_, group + kFeedbackRows); ++row)
          codes[(begin_ + row) * columns_ + column] = in[row];
      }
    std::copy_n(scratch_->objectives.begin(), rows_, objectives + begin_);
  }

 private:
  // One column of a few rows: what a candidate makes of it.
  struct Column {
    float errors[kFeedbackRows];
    std::int8_t codes[kFeedbackRows];
  };

  struct Scratch {
    std::vector<float> errors;  // the weights, then their errors
    std::vector<std::int8_t> codes;
    std::vector<float> feedback;
    std::vector<float> scales;
    std::vector<double> objectives;
    std::vector<float> levels;  // [runs of one tile][codes][kFeedbackRows]
    std::vector<const float*> levels_of_columns;
    std::vector<Column> best;
  };

  std::int64_t column_of(std::int64_t k) const { return problem_.factor.order[static_cast<std::size_t>(k)]; }

  void load(const float* weight) {
    for (std::int64_t group = 0; group < stride_; group += kFeedbackRows)
      for (std::int64_t k = 0; k < columns_; ++k) {
        const float* column = weight + column_of(k);
        float* out = scratch_->errors.data() + k * stride_;
        for (std::int64_t row = group; row < group + kFeedbackRows; ++row) out[row] = row < rows_ ? column[row * columns_] : 0.0f;
      }
    if (same_along_row_)
      for (std::int64_t row = 0; row < rows_; ++row)
        scratch_->scales[static_cast<std::size_t>(row)] = problem_.tiles.front().scale(begin_ + row, 0);
  }

  at::Tensor coefficients(std::int64_t first, std::int64_t last, std::int64_t from, std::int64_t to) const {
    return problem_.factor.coefficients.narrow(0, first, last - first).narrow(1, from, to - from);
  }

  at::Tensor errors(std::int64_t from, std::int64_t to) const {
    return matrix(scratch_->errors.data() + from * stride_, to - from, stride_);
  }

  // Columns [first, last) of the rows from `row` on.
  FeedbackBlock block_of(std::int64_t first, std::int64_t last, std::int64_t row, const float* feedback) const {
    FeedbackBlock block;
    block.grid = &problem_.grid;
    block.table = problem_.table;
    block.columns = last - first;
    block.stride = stride_;
    block.weights = scratch_->errors.data() + first * stride_ + row;
    block.feedback = feedback + row;
    block.coefficients = problem_.factor.coefficients.const_data_ptr<float>() + first * columns_ + first;
    block.coefficient_stride = columns_;
    block.pivots = problem_.factor.pivots.data() + first;
    block.scales = scratch_->scales.data() + row;
    block.scale_stride = same_along_row_ ? 0 : stride_;
    block.codes = scratch_->codes.data() + first * stride_ + row;
    block.objectives = scratch_->objectives.data() + row;
    return block;
  }

  // What codes are worth in each of a few rows, for the columns [first, last).
  void set_levels(FeedbackBlock& block, const TileCodes& tiles, std::int64_t first, std::int64_t last, std::int64_t row) {
    if (!tiles.rounds_values()) return;
    std::array<float, kMostCodes> values;
    float* table = scratch_->levels.data();
    std::int64_t tile = -1;
    for (std::int64_t k = first; k < last; ++k) {
      if (const std::int64_t own = column_of(k) / problem_.layout.tile_columns; own != tile) {
        if (tile != -1) table += problem_.codes() * kFeedbackRows;
        tile = own;
        for (std::int64_t i = 0; i < std::min(kFeedbackRows, rows_ - row); ++i) {
          tiles.values_at(begin_ + row + i, column_of(k), values.data());
          for (int code = 0; code < problem_.codes(); ++code) table[code * kFeedbackRows + i] = values[static_cast<std::size_t>(code)];
        }
      }
      scratch_->levels_of_columns[static_cast<std::size_t>(k - first)] = table;
    }
    block.levels = scratch_->levels_of_columns.data();
  }

  void round_columns(std::int64_t first, std::int64_t last, const float* feedback) {
    const TileCodes& tiles = problem_.tiles.front();
    if (!same_along_row_)
      for (std::int64_t k = first; k < last; ++k)
        for (std::int64_t row = 0; row < rows_; ++row)
          scratch_->scales[static_cast<std::size_t>((k - first) * stride_ + row)] = tiles.scale(begin_ + row, column_of(k));
    for (std::int64_t row = 0; row < stride_; row += kFeedbackRows) {
      FeedbackBlock block = block_of(first, last, row, feedback);
      set_levels(block, tiles, first, last, row);
      round_block(block);
    }
  }

  // The columns [first, last) are one tile.
  void choose_and_round(std::int64_t first, std::int64_t last, const float* feedback, float* chosen) {
    const std::int64_t count = last - first;
    const std::int64_t tile = column_of(first) / problem_.layout.tile_columns;
    const std::int64_t tile_count = (columns_ + problem_.layout.tile_columns - 1) / problem_.layout.tile_columns;
    std::array<float, static_cast<std::size_t>(kBlockColumns * kFeedbackRows)> weights, own_feedback;
    std::array<std::int8_t, static_cast<std::size_t>(kBlockColumns * kFeedbackRows)> codes;
    for (std::int64_t row = 0; row < stride_; row += kFeedbackRows) {
      const std::int64_t live = std::min(kFeedbackRows, rows_ - row);
      FeedbackBlock block = block_of(first, last, row, feedback);
      std::array<double, kFeedbackRows> least, found;
      least.fill(std::numeric_limits<double>::infinity());
      for (std::int64_t k = 0; k < count; ++k)
        std::copy_n(block.feedback + k * stride_, kFeedbackRows, own_feedback.data() + k * kFeedbackRows);
      std::array<float, kFeedbackRows> scales;
      scales.fill(1.0f);
      FeedbackBlock trial = block;
      trial.stride = kFeedbackRows;
      trial.weights = weights.data();
      trial.feedback = own_feedback.data();
      trial.codes = codes.data();
      trial.scales = scales.data();
      trial.scale_stride = 0;
      trial.objectives = found.data();
      for (const TileCodes& tiles : problem_.tiles) {
        bool is_new = &tiles == &problem_.tiles.front();
        for (std::int64_t i = 0; i < live; ++i) {
          const float scale = tiles.scale(begin_ + row + i, column_of(first));
          is_new = is_new || scale != scales[static_cast<std::size_t>(i)];
          scales[static_cast<std::size_t>(i)] = scale;
        }
        if (!is_new) continue;
        set_levels(trial, tiles, first, last, row);
        for (std::int64_t k = 0; k < count; ++k)
          std::copy_n(block.weights + k * stride_, kFeedbackRows, weights.data() + k * kFeedbackRows);
        found.fill(0);
        round_block(trial);
        for (std::int64_t i = 0; i < live; ++i) {
          const auto at = static_cast<std::size_t>(i);
          if (!(found[at] < least[at])) continue;
          least[at] = found[at];
          chosen[(begin_ + row + i) * tile_count + tile] = scales[at];
          for (std::int64_t k = 0; k < count; ++k) {
            Column& best = scratch_->best[static_cast<std::size_t>(k)];
            best.errors[i] = weights[static_cast<std::size_t>(k * kFeedbackRows + i)];
            best.codes[i] = codes[static_cast<std::size_t>(k * kFeedbackRows + i)];
          }
        }
      }
      for (std::int64_t i = 0; i < live; ++i) block.objectives[i] += least[static_cast<std::size_t>(i)];
      for (std::int64_t k = 0; k < count; ++k) {
        const Column& best = scratch_->best[static_cast<std::size_t>(k)];
        std::copy_n(best.errors, live, block.weights + k * stride_);
        std::copy_n(best.codes, live, block.codes + k * stride_);
      }
    }
  }

  const Problem& problem_;
  const std::int64_t columns_;
  const std::int64_t begin_;
  const std::int64_t rows_;
  const std::int64_t stride_;
  const bool same_along_row_;
  Scratch* scratch_;
};

FeedbackRounding solve(const Problem& problem, CodedWeight coded, float* chosen, LayerContext& context) {
  const std::int64_t rows = problem.weight.size(0);
  FeedbackRounding result{std::move(coded), std::vector<double>(static_cast<std::size_t>(rows))};
  auto* codes = result.coded.codes.mutable_data_ptr<std::int8_t>();
  context.parallel((rows + kSliceRows - 1) / kSliceRows, [&](std::int64_t task) {
    context.check_cancelled();
    const OneThread one_thread;
    const std::int64_t begin = task * kSliceRows;
    Slice slice(problem, begin, std::min(rows, begin + kSliceRows));
    slice.round(chosen);
    slice.store(codes, result.objectives.data());
  });
  return result;
}

std::unique_ptr<const GridTable> table_of(const Grid& grid) {
  return grid.values.empty() ? nullptr : std::make_unique<const GridTable>(grid);
}

}  // namespace

FeedbackRounding round_with_feedback(const at::Tensor& weight, const TileScales& scales, const Grid& grid, const Layout& layout,
                                     const HessianFactor& factor, LayerContext& context, std::int64_t block_columns) {
  const auto table = table_of(grid);
  const std::int64_t columns = weight.size(1);
  Problem problem{weight, grid, table.get(), layout, factor, {}, Cuts::even(columns, std::clamp<std::int64_t>(block_columns, 1, columns))};
  problem.tiles.emplace_back(grid, layout, columns, scales);
  CodedWeight coded{context.allocate(std::array{weight.size(0), columns}, DType::i8), scales.values, {}, scales.common};
  return solve(problem, std::move(coded), nullptr, context);
}

bool can_choose_scales(const Layout& layout, std::int64_t columns) {
  return layout.tile_rows == 1 && layout.tile_columns <= kBlockColumns && layout.tile_columns < columns;
}

FeedbackRounding round_and_choose_scales(const at::Tensor& weight, const std::vector<at::Tensor>& candidates, const at::Tensor& common,
                                         const Grid& grid, const Layout& layout, const HessianFactor& factor, LayerContext& context) {
  const auto table = table_of(grid);
  const std::int64_t columns = weight.size(1);
  Problem problem{weight, grid, table.get(), layout, factor, {}, Cuts::between_tiles(factor.order, layout.tile_columns)};
  for (const at::Tensor& values : candidates) problem.tiles.emplace_back(grid, layout, columns, TileScales{values, common});
  CodedWeight coded{context.allocate(std::array{weight.size(0), columns}, DType::i8),
                    context.allocate(candidates.front().sizes(), DType::f32), {}, common};
  auto* chosen = coded.scales.mutable_data_ptr<float>();
  return solve(problem, std::move(coded), chosen, context);
}

}  // namespace qmill
