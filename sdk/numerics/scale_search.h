// Scales near those that are wished for, and which of them serve best.
#pragma once

#include <qmill/numerics/ldlq.h>

#include <functional>
#include <span>

namespace qmill {

// A grid of so few values gains by clipping.
bool has_few_values(const Grid& grid);

// Times what is wished for, the first one is 1. For scales of whole bands of rows, and for those of short tiles.
std::span<const float> band_factors(const Grid& grid);
std::span<const float> tile_factors(const Grid& grid);

// What is stored for `wished` times each factor: F32 [bands, tiles].
std::vector<at::Tensor> stored_candidates(const at::Tensor& wished, const at::Tensor& common, const Grid& grid, std::span<const float> factors);

// Of the candidates the one with the smallest squared error of the tile, rounded to nearest; of equals, the first.
// [worker-thread; uses context.parallel]
at::Tensor search_tiles(const at::Tensor& weight, std::span<const at::Tensor> candidates, const at::Tensor& common, const Grid& grid,
                        const Layout& layout, LayerContext& context);

// Of the candidates the one that leaves each band of rows that share their scales the smallest objective.
CodedWeight search_bands(std::span<const at::Tensor> candidates, const Layout& layout,
                         const std::function<FeedbackRounding(const at::Tensor& scales)>& round);

}  // namespace qmill
