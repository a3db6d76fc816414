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

// Which search is chosen outside of the loop.
void RoundToTable(const float* values, std::int64_t n, float scale, const GridTable& table, std::int8_t* codes) {
  const int lowest = table.grid.lowest;
  if (const GridTable::SmallFloat small = table.small_float; small.mantissa_bits != 0)
    RoundRun(values, n, scale, lowest, codes, [=](auto d, auto x) HWY_ATTR { return PlaceInSmallFloat(d, x, small); });
  else if (table.has_few_codes())
    RoundRun(values, n, scale, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceAmongFew(d, x, table); });
  else if (table.has_buckets())
    RoundRun(values, n, scale, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceByBucket(d, x, table); });
  else
    RoundRun(values, n, scale, lowest, codes, [&](auto d, auto x) HWY_ATTR { return PlaceInTable(d, x, table); });
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qmill {
namespace {
HWY_EXPORT(RoundToTable);
}  // namespace

void round_to_table(const float* values, std::int64_t n, float scale, const GridTable& table, std::int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(RoundToTable)(values, n, scale, table, codes);
}

GridRounder::GridRounder(const Grid& grid)
    : lowest_(grid.lowest), highest_(grid.highest), table_(grid.values.empty() ? nullptr : std::make_unique<const GridTable>(grid)) {}

GridRounder::~GridRounder() = default;
GridRounder::GridRounder(GridRounder&&) noexcept = default;

void GridRounder::round(const float* values, std::int64_t n, float scale, std::int8_t* codes) const {
  if (table_ == nullptr) return round_codes(values, n, scale, lowest_, highest_, codes);
  round_to_table(values, n, scale, *table_, codes);
}

}  // namespace qmill
#endif  // HWY_ONCE
