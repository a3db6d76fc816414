#include <qmill/numerics/grid_rounder.h>

#include "grid_table.h"

#include <qmill/numerics/row_kernels.h>

#include <algorithm>
#include <cstring>

#include "simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "grid_rounder.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include "table_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// place(values) gives codes, counted from the lowest.
template <class Place>
HWY_INLINE void RoundRun(const float* values, std::int64_t n, float scale, int lowest, std::int8_t* codes, Place place) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<std::int8_t, decltype(d)> d8;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto divisor = hn::Set(d, scale);
  const auto first = hn::Set(di, lowest);
  const auto round = [&](const float* in) HWY_ATTR {
    return hn::DemoteTo(d8, hn::Add(place(d, hn::Div(hn::LoadU(d, in), divisor)), first));
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(round(values + i), d8, codes + i);
  if (i >= n) return;
  const auto left = static_cast<std::size_t>(std::min(n - i, lanes));
  float padded[HWY_MAX_BYTES / sizeof(float)] = {};
  std::int8_t rounded[HWY_MAX_BYTES / sizeof(float)];
  std::memcpy(padded, values + i, left * sizeof *values);
  hn::StoreU(round(padded), d8, rounded);
  std::memcpy(codes + i, rounded, left);
}

template <class Place>
HWY_INLINE void RoundTiles(const float* values, std::int64_t n, std::int64_t tile_columns, const float* scales, int lowest, std::int8_t* codes,
                           Place place) {
  for (std::int64_t first = 0; first < n; first += tile_columns)
    RoundRun(values + first, std::min(tile_columns, n - first), *scales++, lowest, codes + first, place);
}

// Which search is chosen outside of the loop.
void RoundToTable(const float* values, std::int64_t n, std::int64_t tile, const float* scales, const GridTable& table, std::int8_t* codes) {
  const int lowest = table.grid.lowest;
  if (const GridTable::SmallFloat small = table.small_float; small.mantissa_bits != 0)
    RoundTiles(values, n, tile, scales, lowest, codes, [=](auto d, auto x) HWY_ATTR { return PlaceInSmallFloat(d, x, small); });
  else if (table.has_few_codes())
    RoundTiles(values, n, tile, scales, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceAmongFew(d, x, table); });
  else if (table.has_buckets())
    RoundTiles(values, n, tile, scales, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceByBucket(d, x, table); });
  else
    RoundTiles(values, n, tile, scales, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceInTable(d, x, table); });
}

// Of values equally near, the lower one.
void RoundToValues(const float* values, std::int64_t n, const float* table, int count, int lowest, std::int8_t* codes) {
  RoundRun(values, n, 1.0f, lowest, codes, [=](auto d, auto x) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> di;
    const auto twice = hn::Add(x, x);
    auto place = hn::Zero(di);
    for (int i = 1; i < count; ++i)
      place = hn::Sub(place, hn::BitCast(di, hn::VecFromMask(d, hn::Gt(twice, hn::Set(d, table[i - 1] + table[i])))));
    return place;
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {
HWY_EXPORT(RoundToTable);
HWY_EXPORT(RoundToValues);
}  // namespace

void round_to_values(const float* values, std::int64_t n, const float* table, int count, int lowest, std::int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RoundToValues)(values, n, table, count, lowest, codes);
}

void round_to_table(const float* values, std::int64_t n, std::int64_t tile_columns, const float* scales, const GridTable& table,
                    std::int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RoundToTable)(values, n, tile_columns, scales, table, codes);
}

GridRounder::GridRounder(const Grid& grid)
    : lowest_(grid.lowest), highest_(grid.highest), table_(grid.values.empty() ? nullptr : std::make_unique<const GridTable>(grid)) {}

GridRounder::~GridRounder() = default;
GridRounder::GridRounder(GridRounder&&) noexcept = default;

void GridRounder::round(const float* values, std::int64_t n, float scale, std::int8_t* codes) const {
  round_tiles(values, n, std::max<std::int64_t>(1, n), &scale, codes);
}

void GridRounder::round_tiles(const float* values, std::int64_t n, std::int64_t tile_columns, const float* scales, std::int8_t* codes) const {
  if (table_ != nullptr) return round_to_table(values, n, tile_columns, scales, *table_, codes);
  for (std::int64_t first = 0; first < n; first += tile_columns)
    round_codes(values + first, std::min(tile_columns, n - first), *scales++, lowest_, highest_, codes + first);
}

}  // namespace qmill
#endif  // HWY_ONCE
