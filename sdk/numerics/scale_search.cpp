#include "scale_search.h"

#include <qmill/numerics/tile_codes.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>

namespace qmill {
namespace {

// Few values gain by clipping; many gain a little by being somewhere else than they were.
constexpr std::array kFewValues = {1.0f, 0.94f, 0.88f, 0.82f, 0.76f, 0.70f, 0.64f};
constexpr std::array kManyValues = {1.0f, 1.06f, 1.045f, 1.03f, 1.015f, 0.985f, 0.97f};
// A short tile has a few values that matter: also a scale that puts its largest on a smaller value of the grid. Steps of E4M3 scales.
constexpr std::array kFewValuesOfTile = {1.0f, 1.07f, 1.15f, 1.24f, 1.33f, 1.43f, 1.53f, 0.93f, 0.87f, 0.81f, 0.75f, 0.69f, 0.63f};
constexpr std::array kManyValuesOfTile = {1.0f, 1.06f, 1.03f, 0.97f, 0.94f, 0.7f, 0.5f};

constexpr int kFew = 16;
constexpr std::int64_t kValuesPerTask = 1 << 17;

}  // namespace

bool has_few_values(const Grid& grid) { return grid.highest - grid.lowest < kFew; }

std::span<const float> band_factors(const Grid& grid) {
  return has_few_values(grid) ? std::span<const float>(kFewValues) : std::span<const float>(kManyValues);
}

std::span<const float> tile_factors(const Grid& grid) {
  return has_few_values(grid) ? std::span<const float>(kFewValuesOfTile) : std::span<const float>(kManyValuesOfTile);
}

std::vector<at::Tensor> stored_candidates(const at::Tensor& wished, const at::Tensor& common, const Grid& grid, std::span<const float> factors) {
  std::vector<at::Tensor> candidates;
  for (const float factor : factors) {
    const at::Tensor other = factor == 1 ? wished : wished * factor;
    candidates.push_back(grid.scale_grid == nullptr ? other : grid.scale_grid->stored(other, common));
  }
  return candidates;
}

at::Tensor search_tiles(const at::Tensor& weight, std::span<const at::Tensor> candidates, const at::Tensor& common, const Grid& grid,
                        const Layout& layout, LayerContext& context) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1), tiles = candidates.front().size(1);
  const std::int64_t bands = candidates.front().size(0);
  std::vector<TileCodes> codes_of;
  for (const at::Tensor& values : candidates) codes_of.emplace_back(grid, layout, columns, TileScales{values, common});
  at::Tensor best = at::empty_like(candidates.front());
  auto* out = best.mutable_data_ptr<float>();
  const auto* all_values = weight.const_data_ptr<float>();

  const std::int64_t bands_per_task = std::max<std::int64_t>(1, kValuesPerTask / std::max<std::int64_t>(1, layout.tile_rows * columns));
  context.parallel((bands + bands_per_task - 1) / bands_per_task, [&](std::int64_t task) {
    context.check_cancelled();
    std::vector<std::int8_t> codes(static_cast<std::size_t>(columns));
    std::vector<float> decoded(static_cast<std::size_t>(columns));
    std::vector<double> least(static_cast<std::size_t>(tiles)), found(static_cast<std::size_t>(tiles));
    for (std::int64_t band = task * bands_per_task; band < std::min(bands, (task + 1) * bands_per_task); ++band) {
      std::fill(least.begin(), least.end(), std::numeric_limits<double>::infinity());
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        std::fill(found.begin(), found.end(), 0.0);
        for (std::int64_t row = band * layout.tile_rows; row < std::min(rows, (band + 1) * layout.tile_rows); ++row) {
          const float* values = all_values + row * columns;
          codes_of[i].round(row, values, codes.data());
          codes_of[i].decode(row, codes.data(), decoded.data());
          for (std::int64_t k = 0; k < columns; ++k) {
            const double error = static_cast<double>(values[k]) - static_cast<double>(decoded[static_cast<std::size_t>(k)]);
            found[static_cast<std::size_t>(k / layout.tile_columns)] += error * error;
          }
        }
        const auto* scales = candidates[i].const_data_ptr<float>() + band * tiles;
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
          const auto at = static_cast<std::size_t>(tile);
          if (!(found[at] < least[at])) continue;
          least[at] = found[at];
          out[band * tiles + tile] = scales[tile];
        }
      }
    }
  });
  return best;
}

CodedWeight search_bands(std::span<const at::Tensor> candidates, const Layout& layout,
                         const std::function<FeedbackRounding(const at::Tensor& scales)>& round) {
  CodedWeight best;
  const std::int64_t bands = candidates.front().size(0), tiles = candidates.front().size(1);
  std::vector<double> least(static_cast<std::size_t>(bands), std::numeric_limits<double>::infinity());
  for (const at::Tensor& scales : candidates) {
    FeedbackRounding tried = round(scales);
    const bool is_first = !best.codes.defined();
    if (is_first) best = {tried.coded.codes, scales.clone(), {}, tried.coded.common_scale};
    const std::int64_t columns = best.codes.size(1);
    const auto rows = static_cast<std::int64_t>(tried.objectives.size());
    for (std::int64_t band = 0; band < bands; ++band) {
      const std::int64_t begin = band * layout.tile_rows;
      const std::int64_t end = std::min(rows, begin + layout.tile_rows);
      const double objective = std::accumulate(tried.objectives.begin() + begin, tried.objectives.begin() + end, 0.0);
      if (!(objective < least[static_cast<std::size_t>(band)])) continue;
      least[static_cast<std::size_t>(band)] = objective;
      if (is_first) continue;
      std::memcpy(best.codes.mutable_data_ptr<std::int8_t>() + begin * columns,
                  tried.coded.codes.const_data_ptr<std::int8_t>() + begin * columns, static_cast<std::size_t>((end - begin) * columns));
      std::copy_n(scales.const_data_ptr<float>() + band * tiles, tiles, best.scales.mutable_data_ptr<float>() + band * tiles);
    }
  }
  return best;
}

}  // namespace qmill
