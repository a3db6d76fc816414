// The nearest codes of a table, one per lane, compiled once per instruction set.
#if defined(QMILL_TABLE_SEARCH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef QMILL_TABLE_SEARCH_INL_H
#undef QMILL_TABLE_SEARCH_INL_H
#else
#define QMILL_TABLE_SEARCH_INL_H
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qmill {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Codes and their values for x, which may be anything: what Grid::nearest says.
template <class D, class V = hn::Vec<D>, class I = hn::Vec<hn::RebindToSigned<D>>>
HWY_INLINE I NearestInTable(D d, V x, const GridTable& table, V& value) {
  const hn::RebindToSigned<D> di;
  if (table.has_few_codes()) {
    I codes = hn::Set(di, table.grid.lowest);
    value = hn::Set(d, table.values[0]);
    for (std::size_t i = 0; i < table.thresholds.size(); ++i) {  // NaN passes none
      const auto passes = hn::Ge(x, hn::Set(d, table.thresholds[i]));
      codes = hn::Sub(codes, hn::BitCast(di, hn::VecFromMask(d, passes)));
      value = hn::IfThenElse(passes, hn::Set(d, table.values[i + 1]), value);
    }
    return codes;
  }
  const I lowest = hn::Set(di, table.grid.lowest);
  I codes;
  if (table.has_buckets()) {
    const hn::RebindToUnsigned<D> du;
    const I bucket = hn::BitCast(di, hn::ShiftRight<GridTable::kBucketShift>(hn::BitCast(du, x)));
    const auto passes = hn::Ge(x, hn::GatherIndex(d, table.bucket_thresholds.data(), bucket));
    codes = hn::Sub(hn::GatherIndex(di, table.bucket_codes.data(), bucket), hn::BitCast(di, hn::VecFromMask(d, passes)));
    codes = hn::IfThenElse(hn::RebindMask(di, hn::IsNaN(x)), lowest, codes);
  } else {
    float lanes[HWY_MAX_BYTES / sizeof(float)];
    std::int32_t found[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(x, d, lanes);
    for (std::size_t lane = 0; lane < hn::Lanes(d); ++lane) found[lane] = table.grid.nearest(lanes[lane]);
    codes = hn::LoadU(di, found);
  }
  value = hn::GatherIndex(d, table.values.data(), hn::Sub(codes, lowest));
  return codes;
}

}  // namespace HWY_NAMESPACE
}  // namespace qmill
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
