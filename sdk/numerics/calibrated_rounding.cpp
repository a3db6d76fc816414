#include <qmill/numerics/calibrated_rounding.h>

#include "scale_search.h"

#include <qmill/error.h>
#include <qmill/numerics/descent.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/numerics/sample_judge.h>
#include <qmill/numerics/tile_codes.h>

#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace qmill {
namespace {

constexpr double kUsualDamping = 0.01;            // GPTQ's
constexpr std::int64_t kCheapColumns = 1024;      // a factorization of so many costs little
constexpr std::int64_t kAmpleRowsPerColumn = 16;  // with so many the usual damping is within 2 % of the best (docs/quality.md)

// A weight in parts: one part where it is in memory as a whole.
class Parts {
 public:
  Parts(const WeightParts& weight, const Layout& layout, bool searches_scales) : weight_(weight), layout_(layout), rows_(weight.rows) {
    // Rows that share their scales stay together where these are searched for. A tile of all rows may be cut otherwise: its scale is that
    // of its largest part.
    const std::int64_t tile = std::min(layout.tile_rows, weight.rows);
    const std::int64_t unit = std::lcm(kSliceRows, tile == weight.rows && !searches_scales ? 1 : tile);
    if (weight.part_rows < weight.rows) rows_ = std::min(weight.rows, (weight.part_rows + unit - 1) / unit * unit);
  }

  // What tiles wish for, and rows of the sample, from one pass over the weight.
  WishedScales survey(const Grid& grid, std::span<const std::int64_t> picked, at::Tensor& sample, LayerContext& context) const {
    const std::int64_t columns = weight_.columns;
    const std::int64_t bands = (weight_.rows + layout_.tile_rows - 1) / layout_.tile_rows;
    const std::int64_t tiles = (columns + layout_.tile_columns - 1) / layout_.tile_columns;
    WishedScales wished{at::zeros({bands, tiles}, at::kFloat)};
    if (grid.scale_grid != nullptr) wished.peaks = at::zeros({bands}, at::kFloat);
    sample = context.allocate(std::array{static_cast<std::int64_t>(picked.size()), columns}, DType::f32);
    auto* out = sample.mutable_data_ptr<float>();
    for_each([&](std::int64_t begin, std::int64_t end, const at::Tensor& rows) {
      const WishedScales found = wished_scales(rows, grid, layout_, context);
      const auto raise = [&](const at::Tensor& whole, const at::Tensor& part) {
        if (!whole.defined()) return;
        at::Tensor target = whole.narrow(0, first_band(begin), part.size(0));
        target.copy_(at::maximum(target, part));
      };
      raise(wished.values, found.values);
      raise(wished.peaks, found.peaks);
      for (; !picked.empty() && picked.front() < end; picked = picked.subspan(1), out += columns)
        std::copy_n(rows.const_data_ptr<float>() + (picked.front() - begin) * columns, columns, out);
    });
    return wished;
  }

  // round(rows of a part, their scales) gives the codes and scales of that part.
  template <class Round>
  CodedWeight round(const TileScales& scales, LayerContext& context, Round round_part) const {
    if (rows_ == weight_.rows) return round_part(weight_.load(0, rows_), scales);
    CodedWeight coded{context.allocate(std::array{weight_.rows, weight_.columns}, DType::i8), scales.values.clone(), {}, scales.common};
    auto* codes = coded.codes.mutable_data_ptr<std::int8_t>();
    for_each([&](std::int64_t begin, std::int64_t end, const at::Tensor& rows) {
      const std::int64_t first = first_band(begin);
      const std::int64_t count = (end + layout_.tile_rows - 1) / layout_.tile_rows - first;
      const CodedWeight part = round_part(rows, narrow_bands(scales, first, count));
      std::copy_n(part.codes.const_data_ptr<std::int8_t>(), part.codes.numel(), codes + begin * weight_.columns);
      coded.scales.narrow(0, first, count).copy_(part.scales);
    });
    return coded;
  }

  std::int64_t count() const { return (weight_.rows + rows_ - 1) / rows_; }

 private:
  template <class Body>
  void for_each(Body body) const {
    for (std::int64_t begin = 0; begin < weight_.rows; begin += rows_) {
      const std::int64_t end = std::min(weight_.rows, begin + rows_);
      body(begin, end, weight_.load(begin, end));
    }
  }

  std::int64_t first_band(std::int64_t row) const { return row / layout_.tile_rows; }

  const WeightParts& weight_;
  const Layout& layout_;
  std::int64_t rows_;
};

std::shared_ptr<const HessianFactor> shared_factor(const LayerInputs& inputs, const FactorOptions& options, LayerContext& context) {
  const std::string key =
      fmt::format("factor/{}/{}/{}/{}", inputs.key, options.damping, options.activation_order, options.group_columns);
  return std::static_pointer_cast<const HessianFactor>(context.shared(
      key, [&] { return std::make_shared<HessianFactor>(factor_hessian(inputs.hessian, inputs.hessian.size(0), options, context)); }));
}

// Uphill or downhill from the usual damping while the error on the rows kept apart falls.
double best_damping(const LayerInputs& inputs, const SampleJudge& judge, const TileScales& scales, const Grid& grid, FactorOptions options,
                    LayerContext& context) {
  const std::int64_t columns = inputs.hessian.size(0);
  const bool is_ample = columns > kCheapColumns && inputs.rows >= kAmpleRowsPerColumn * columns;
  if (!judge.has_held_out() || is_ample) return kUsualDamping;
  const auto error = [&](double damping) {
    options.damping = damping;
    const std::shared_ptr<const HessianFactor> factor = shared_factor(inputs, options, context);
    return judge.output_error(round_with_feedback(judge.weight(), judge.scales_of(scales), grid, judge.layout(), *factor, context).coded);
  };
  const auto error_if_definite = [&](double damping) {  // some Hessians need their damping
    try {
      return error(damping);
    } catch (const Error& refusal) {
      if (refusal.kind() != ErrorKind::numeric) throw;
      return std::numeric_limits<double>::infinity();
    }
  };
  double best = kUsualDamping;
  double least = error(best);
  for (const double step : {10.0, 0.1}) {
    const double before = best;
    for (double next = kUsualDamping * step; next >= 0.0005 && next <= 20; next *= step) {
      const double found = error_if_definite(next);
      if (!(found < least)) break;
      least = found;
      best = next;
    }
    if (best != before) break;
  }
  return best;
}

enum class Search { none, tiles, bands, while_rounding };

Search search_for(const CalibratedRounding& how, const Grid& grid, const Layout& layout, std::int64_t columns, bool is_informed) {
  const ScaleSearch wanted = how.scale_search.value_or(has_few_values(grid) ? ScaleSearch::hessian : ScaleSearch::off);
  if (wanted == ScaleSearch::off) return Search::none;
  if (wanted == ScaleSearch::mse || !is_informed) return Search::tiles;
  return can_choose_scales(layout, columns) ? Search::while_rounding : Search::bands;
}

// Bands of rows have factors of their own where one scale is all that a row has.
std::span<const float> factors_for(Search search, const Grid& grid, const Layout& layout, std::int64_t columns) {
  return search == Search::bands || layout.tile_columns >= columns ? band_factors(grid) : tile_factors(grid);
}

}  // namespace

std::vector<OptionSpec> calibrated_options() {
  OptionSpec damping{"damping", std::string("auto"),
                     "number added to the diagonal of the Hessian, times its mean; auto: chosen on the rows kept apart, or 0.01"};
  damping.choices = {"auto"};
  damping.takes_numbers = true;
  damping.at_least = 0;
  damping.flag = "damping";
  OptionSpec search{"scale_search", std::string("auto"),
                    "which scales: off: by the largest value; mse: the smallest error of the weight; hessian: the smallest error on real "
                    "inputs; auto: hessian for formats of at most 16 values"};
  search.choices = {"auto", "hessian", "mse", "off"};
  search.flag = "scale-search";
  return {damping, search};
}

CalibratedRounding read_calibrated_options(const Options& options) {
  CalibratedRounding how;
  if (const std::string& damping = options.text("damping"); damping != "auto") {
    double& number = how.damping.emplace();
    std::from_chars(damping.data(), damping.data() + damping.size(), number);  // the schema lets nothing else pass
  }
  if (const std::string& search = options.text("scale_search"); search != "auto")
    how.scale_search = search == "hessian" ? ScaleSearch::hessian : search == "mse" ? ScaleSearch::mse : ScaleSearch::off;
  return how;
}

CodedWeight round_calibrated(const at::Tensor& weight, const Grid& grid, const Layout& layout, const LayerInputs* inputs,
                             const CalibratedRounding& how, LayerContext& context) {
  const WeightParts whole{weight.size(0), weight.size(1), weight.size(0), [&](std::int64_t, std::int64_t) { return weight; }};
  return round_calibrated(whole, grid, layout, inputs, how, context);
}

namespace {

std::string why_uninformed(const LayerInputs* inputs, const LayerContext& context) {
  if (inputs == nullptr) return "no calibration data: its Hessian is the identity";
  const LayerCalibration* calibration = context.calibration();
  const at::Tensor rows = calibration != nullptr && calibration->row_count() > 0 ? calibration->rows() : at::Tensor();
  const bool is_tiny = rows.defined() && rows.numel() > 0 && largest_magnitude(rows.const_data_ptr<float>(), rows.numel()) > 0;
  return is_tiny ? "its inputs are so small that their squares are zero: its Hessian is the identity"
                 : "its inputs were all zero: its Hessian is the identity";
}

}  // namespace

CodedWeight round_calibrated(const WeightParts& weight, const Grid& grid, const Layout& layout, const LayerInputs* inputs,
                             const CalibratedRounding& how, LayerContext& context) {
  Layout stored = layout;  // `weight` is in its basis already
  stored.rotation_group = 0;
  const bool is_informed = inputs != nullptr && !inputs->all_zero();
  const Search search = search_for(how, grid, stored, weight.columns, is_informed);
  const Parts parts(weight, stored, search != Search::none);
  std::vector<std::int64_t> picked;
  if (is_informed) picked = SampleJudge::rows_of(weight.rows);
  at::Tensor sampled;
  const WishedScales wished = parts.survey(grid, picked, sampled, context);
  const TileScales scales = stored_scales(wished, grid);
  const TileScales wished_with_common{wished.values, scales.common};  // what a part wishes for is stored with what the whole has in common
  const std::span<const float> factors = factors_for(search, grid, stored, weight.columns);
  const auto searched = [&](const at::Tensor& rows, const TileScales& given) {
    return TileScales{search_tiles(rows, stored_candidates(given.values, given.common, grid, factors), given.common, grid, stored, context),
                      given.common};
  };
  const auto round_nearest = [&] {
    return parts.round(scales, context,
                       [&](const at::Tensor& rows, const TileScales& given) { return round_onto(rows, given, grid, stored, context); });
  };
  if (!is_informed) {
    context.note(why_uninformed(inputs, context));
    if (search == Search::none) return round_nearest();
    return parts.round(wished_with_common, context, [&](const at::Tensor& rows, const TileScales& given) {
      return round_onto(rows, searched(rows, given), grid, stored, context);
    });
  }

  const SampleJudge judge(sampled, weight.rows, stored, *inputs, grid, context);
  FactorOptions options;
  options.activation_order = how.activation_order;
  const bool keeps_tiles = grid.scale_grid != nullptr && grid.scale_grid->rounds_values() && can_choose_scales(stored, weight.columns);
  if (search == Search::while_rounding || keeps_tiles) options.group_columns = stored.tile_columns;
  options.damping = how.damping ? *how.damping : best_damping(*inputs, judge, scales, grid, options, context);
  const std::shared_ptr<const HessianFactor> factor = shared_factor(*inputs, options, context);
  const auto round = [&](const at::Tensor& rows, const TileScales& given) {
    const auto feed_back = [&](const TileScales& final_scales) {
      return round_with_feedback(rows, final_scales, grid, stored, *factor, context, how.block_columns);
    };
    switch (search) {
      case Search::none:
        return feed_back(given).coded;
      case Search::tiles:
        return feed_back(searched(rows, given)).coded;
      case Search::bands:
        return search_bands(stored_candidates(given.values, given.common, grid, factors), stored,
                            [&](const at::Tensor& tried) { return feed_back({tried, given.common}); });
      case Search::while_rounding:
        break;
    }
    return round_and_choose_scales(rows, stored_candidates(given.values, given.common, grid, factors), given.common, grid, stored, *factor,
                                   context)
        .coded;
  };
  const at::Tensor damped_hessian = how.descent_passes > 0 ? damped(inputs->hessian, options.damping) : at::Tensor();
  CodedWeight coded = parts.round(search == Search::none ? scales : wished_with_common, context,
                                  [&](const at::Tensor& rows, const TileScales& given) {
                                    CodedWeight part = round(rows, given);
                                    if (how.descent_passes == 0) return part;
                                    const TileCodes tiles(grid, stored, weight.columns, {part.scales, part.common_scale});
                                    part.codes = descend(rows, tiles, part.codes, damped_hessian, at_most(how.descent_passes), context).codes;
                                    return part;
                                  });

  const SampleJudge::Verdict nearest = judge.verdict(round_onto(judge.weight(), judge.scales_of(scales), grid, judge.layout(), context));
  SampleJudge::Verdict found = judge.verdict(judge.sample_of(coded));
  if (!judge.prefers(found, nearest) || inputs->too_few()) {
    context.note(inputs->too_few()      ? "rounded to nearest: its inputs are fewer than 20 rows"
                 : judge.has_held_out() ? "rounded to nearest: nothing else had a smaller error on the rows kept apart"
                                        : "rounded to nearest: nothing else had a smaller objective");
    coded = round_nearest();
    found = nearest;
  }
  coded.statistics = {{"damping", options.damping}, {"objective_rtn", nearest.objective}, {"objective", found.objective}};
  if (judge.has_held_out()) {
    coded.statistics["output_error_rtn"] = nearest.output_error;
    coded.statistics["output_error"] = found.output_error;
  }
  coded.statistics["block_columns"] = static_cast<double>(std::min(how.block_columns, weight.columns));
  if (parts.count() != 1) coded.statistics["pieces"] = static_cast<double>(parts.count());
  if (factor->dead_columns != 0) coded.statistics["dead_inputs"] = static_cast<double>(factor->dead_columns);
  return coded;
}

std::int64_t rows_at_once(const at::Tensor& weight, const Layout& layout, const LayerContext& context) {
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = std::max<std::int64_t>(1, weight.size(1));
  std::int64_t limit = context.step_limit(Step::ldlq);
  if (layout.rotation_group != 0) limit = std::min(limit, context.step_limit(Step::hadamard));
  return rows <= limit / columns ? rows : std::max<std::int64_t>(1, limit / columns);
}

CodedWeight round_calibrated_in_parts(const at::Tensor& weight, std::int64_t part_rows, const CalibratedRounding& how,
                                      LayerContext& context) {
  const Layout& layout = context.target().layout;
  const Grid& grid = context.target().coded().grid();
  const std::int64_t rows = weight.size(0);
  const WeightParts parts{rows, weight.size(1), part_rows, [&](std::int64_t begin, std::int64_t end) {
                            try {
                              return to_stored_basis(weight.narrow(0, begin, end - begin), layout, context);
                            } catch (const Error& error) {
                              // The count and the place are of the part: those of the whole, where it can tell.
                              if (error.kind() == ErrorKind::numeric) round_to_nearest(weight, grid, layout, context);
                              throw;
                            }
                          }};
  return round_calibrated(parts, grid, layout, inputs_in_stored_basis(layout, context).get(), how, context);
}

}  // namespace qmill
