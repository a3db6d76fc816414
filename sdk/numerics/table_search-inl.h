// The nearest codes of a table, one per lane, compiled once per instruction set.
#if defined(QMILL_TABLE_SEARCH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef QMILL_TABLE_SEARCH_INL_H
#undef QMILL_TABLE_SEARCH_INL_H
#else
#define QMILL_TABLE_SEARCH_INL_H
#endif

#include <hwy/highway.h>

#include <bit>

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Which of few codes: a binary search, whose levels are tables in registers where they fit.
template <class D, class V = hn::Vec<D>, class I = hn::Vec<hn::RebindToSigned<D>>>
HWY_INLINE I PlaceAmongFew(D d, V x, const GridTable& table) {
  const hn::RebindToSigned<D> di;
  I place = hn::Zero(di);
  for (std::size_t level = 0; level < GridTable::kLevels; ++level) {
    const float* thresholds = table.levels[level].data();
    V threshold;
    if (level == 0)
      threshold = hn::Set(d, thresholds[0]);
#if HWY_TARGET != HWY_SCALAR
    else if (hn::MaxLanes(d) >= (std::size_t{1} << level) && hn::MaxLanes(d) <= GridTable::kFewCodes)
      threshold = hn::TableLookupLanes(hn::LoadU(d, thresholds), hn::IndicesFromVec(d, place));
#endif
    else
      threshold = hn::GatherIndex(d, thresholds, place);
    const auto passes = hn::VecFromMask(d, hn::Ge(x, threshold));  // NaN passes none
    place = hn::Sub(hn::Add(place, place), hn::BitCast(di, passes));
  }
  return place;
}

template <class D, class V = hn::Vec<D>, class I = hn::Vec<hn::RebindToSigned<D>>>
HWY_INLINE I PlaceByBucket(D, V x, const GridTable& table) {
  const hn::RebindToSigned<D> di;
  const hn::RebindToUnsigned<D> du;
  const I bits = hn::BitCast(di, x);
  const I bucket = hn::BitCast(di, hn::ShiftRight<GridTable::kRestBits>(hn::BitCast(du, x)));
  const I entry = hn::GatherIndex(di, table.buckets.data(), bucket);
  const I rest = hn::And(bits, hn::Set(di, (1 << GridTable::kRestBits) - 1));
  const I away_from_zero = hn::Or(hn::ShiftRight<31>(bits), hn::Set(di, 1));
  const auto stays = hn::Gt(hn::ShiftRight<8>(entry), rest);
  const I place = hn::Add(hn::And(entry, hn::Set(di, 0xff)), hn::IfThenZeroElse(stays, away_from_zero));
  return hn::IfThenZeroElse(hn::RebindMask(di, hn::IsNaN(x)), place);
}

// Rounds with one addition: |x| + 2^23 steps is a float whose last bit is one step, so it is rounded to a whole number of steps, half to even.
// A step is that of the exponent of x; below the smallest normal value it is the table's. `small` is a copy, which no store of codes can change.
template <class D, class V = hn::Vec<D>, class I = hn::Vec<hn::RebindToSigned<D>>>
HWY_INLINE I PlaceInSmallFloat(D d, V x, GridTable::SmallFloat small) {
  const hn::RebindToSigned<D> di;
  const int shift = 23 - small.mantissa_bits;
  const I smallest = hn::Set(di, std::bit_cast<std::int32_t>(small.smallest_normal));
  const V magnitude = hn::Min(hn::Abs(x), hn::Set(d, small.largest));
  const I exponent = hn::Max(hn::And(hn::BitCast(di, magnitude), hn::Set(di, 0x7f800000)), smallest);
  const I many_steps = hn::Add(exponent, hn::Set(di, shift << 23));
  const I steps = hn::Sub(hn::BitCast(di, hn::Add(magnitude, hn::BitCast(d, many_steps))), many_steps);
  const I code = hn::Add(steps, hn::ShiftRightSame(hn::Sub(exponent, smallest), shift));
  const I sign = hn::ShiftRight<31>(hn::BitCast(di, x));
  const I place = hn::Add(hn::Sub(hn::Xor(code, sign), sign), hn::Set(di, small.highest));
  return hn::IfThenZeroElse(hn::RebindMask(di, hn::IsNaN(x)), place);
}

// Codes of x, which may be anything, counted from the lowest: what Grid::nearest says.
template <class D, class V = hn::Vec<D>, class I = hn::Vec<hn::RebindToSigned<D>>>
HWY_INLINE I PlaceInTable(D d, V x, const GridTable& table) {
  if (table.small_float.mantissa_bits != 0) return PlaceInSmallFloat(d, x, table.small_float);
  if (table.has_few_codes()) return PlaceAmongFew(d, x, table);
  if (table.has_buckets()) return PlaceByBucket(d, x, table);
  const hn::RebindToSigned<D> di;
  float lanes[HWY_MAX_BYTES / sizeof(float)];
  std::int32_t found[HWY_MAX_BYTES / sizeof(float)];
  hn::StoreU(x, d, lanes);
  for (std::size_t lane = 0; lane < hn::Lanes(d); ++lane) found[lane] = table.grid.nearest(lanes[lane]) - table.grid.lowest;
  return hn::LoadU(di, found);
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
