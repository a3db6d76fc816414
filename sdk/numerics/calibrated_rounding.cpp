#include <qmill/numerics/calibrated_rounding.h>

#include <qmill/error.h>
#include <qmill/numerics/products.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/numerics/sample_judge.h>

#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>

namespace qmill {
namespace {

constexpr double kUsualDamping = 0.01;            // GPTQ's
constexpr std::int64_t kCheapColumns = 1024;      // a factorization of so many costs little
constexpr std::int64_t kAmpleRowsPerColumn = 16;  // with so many the usual damping is within 2 % of the best (docs/quality.md)

// Factors of the largest-magnitude scale. Few values gain by clipping; many gain a little by being somewhere else than they were.
constexpr std::array kFewValues = {1.0f, 0.94f, 0.88f, 0.82f, 0.76f, 0.70f, 0.64f};
constexpr std::array kManyValues = {1.0f, 1.06f, 1.045f, 1.03f, 1.015f, 0.985f, 0.97f};
constexpr int kFew = 16;

int count_of(const Grid& grid) { return grid.highest - grid.lowest + 1; }

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

  // Wished scales, and rows of the sample, from one pass over the weight.
  at::Tensor survey(const Grid& grid, std::span<const std::int64_t> picked, at::Tensor& sample, LayerContext& context) const {
    const std::int64_t columns = weight_.columns;
    const std::int64_t bands = (weight_.rows + layout_.tile_rows - 1) / layout_.tile_rows;
    const std::int64_t tiles = (columns + layout_.tile_columns - 1) / layout_.tile_columns;
    const at::Tensor scales = at::zeros({bands, tiles}, at::kFloat);
    sample = context.allocate(std::array{static_cast<std::int64_t>(picked.size()), columns}, DType::f32);
    auto* out = sample.mutable_data_ptr<float>();
    for_each([&](std::int64_t begin, std::int64_t end, const at::Tensor& rows) {
      at::Tensor target = scales_of(scales, begin, end);
      target.copy_(at::maximum(target, wished_scales(rows, grid, layout_, context)));
      for (; !picked.empty() && picked.front() < end; picked = picked.subspan(1), out += columns)
        std::copy_n(rows.const_data_ptr<float>() + (picked.front() - begin) * columns, columns, out);
    });
    return scales;
  }

  // round(rows of a part, their scales) gives the codes and scales of that part.
  template <class Round>
  CodedWeight round(const at::Tensor& scales, LayerContext& context, Round round_part) const {
    if (rows_ == weight_.rows) return round_part(weight_.load(0, rows_), scales);
    CodedWeight coded{context.allocate(std::array{weight_.rows, weight_.columns}, DType::i8), scales.clone()};
    auto* codes = coded.codes.mutable_data_ptr<std::int8_t>();
    for_each([&](std::int64_t begin, std::int64_t end, const at::Tensor& rows) {
      const CodedWeight part = round_part(rows, scales_of(scales, begin, end));
      std::copy_n(part.codes.const_data_ptr<std::int8_t>(), part.codes.numel(), codes + begin * weight_.columns);
      scales_of(coded.scales, begin, end).copy_(part.scales);
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

  at::Tensor scales_of(const at::Tensor& scales, std::int64_t begin, std::int64_t end) const {
    const std::int64_t first = begin / layout_.tile_rows;
    return scales.narrow(0, first, (end + layout_.tile_rows - 1) / layout_.tile_rows - first);
  }

  const WeightParts& weight_;
  const Layout& layout_;
  std::int64_t rows_;
};

std::shared_ptr<const HessianFactor> shared_factor(const LayerInputs& inputs, const FactorOptions& options, LayerContext& context) {
  const std::string key = fmt::format("factor/{}/{}/{}", inputs.key, options.damping, options.activation_order);
  return std::static_pointer_cast<const HessianFactor>(context.shared(
      key, [&] { return std::make_shared<HessianFactor>(factor_hessian(inputs.hessian, inputs.hessian.size(0), options, context)); }));
}

// Uphill or downhill from the usual damping while the error on the rows kept apart falls.
double best_damping(const LayerInputs& inputs, const SampleJudge& judge, const at::Tensor& scales, const Grid& grid, bool activation_order,
                    LayerContext& context) {
  const std::int64_t columns = inputs.hessian.size(0);
  const bool is_ample = columns > kCheapColumns && inputs.rows >= kAmpleRowsPerColumn * columns;
  if (!judge.has_held_out() || is_ample) return kUsualDamping;
  const auto error = [&](double damping) {
    const std::shared_ptr<const HessianFactor> factor = shared_factor(inputs, {damping, activation_order}, context);
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

// Of several scales, the one that leaves each band of rows that share its scales the smallest objective.
// round(scales that are wished for) rounds with those that are stored.
template <class Round>
CodedWeight search_scales(const at::Tensor& scales, const Grid& grid, const Layout& layout, Round round) {
  const std::span<const float> factors = count_of(grid) <= kFew ? std::span<const float>(kFewValues) : std::span<const float>(kManyValues);
  CodedWeight best;
  std::vector<double> least(static_cast<std::size_t>(scales.size(0)), std::numeric_limits<double>::infinity());
  for (const float factor : factors) {
    FeedbackRounding tried = round(scales * factor);
    if (!best.codes.defined()) best = {tried.coded.codes, tried.coded.scales.clone()};
    const std::int64_t columns = best.codes.size(1);
    const auto rows = static_cast<std::int64_t>(tried.objectives.size());
    for (std::int64_t band = 0; band < scales.size(0); ++band) {
      const std::int64_t begin = band * layout.tile_rows;
      const std::int64_t end = std::min(rows, begin + layout.tile_rows);
      const double objective = std::accumulate(tried.objectives.begin() + begin, tried.objectives.begin() + end, 0.0);
      if (!(objective < least[static_cast<std::size_t>(band)])) continue;
      least[static_cast<std::size_t>(band)] = objective;
      if (factor == factors.front()) continue;
      std::memcpy(best.codes.mutable_data_ptr<std::int8_t>() + begin * columns,
                  tried.coded.codes.const_data_ptr<std::int8_t>() + begin * columns, static_cast<std::size_t>((end - begin) * columns));
      std::copy_n(tried.coded.scales.const_data_ptr<float>() + band * scales.size(1), scales.size(1),
                  best.scales.mutable_data_ptr<float>() + band * scales.size(1));
    }
  }
  return best;
}

// Nearest codes, and each row's squared error: the objective under the identity.
FeedbackRounding round_plainly(const at::Tensor& weight, const at::Tensor& scales, const Grid& grid, const Layout& layout,
                               LayerContext& context) {
  FeedbackRounding rounded{round_onto(weight, scales, grid, layout, context), {}};
  const at::Tensor errors = coding_errors(weight, rounded.coded, grid, layout, context);
  const std::int64_t columns = errors.size(1);
  const auto* e = errors.const_data_ptr<float>();
  for (std::int64_t row = 0; row < errors.size(0); ++row, e += columns) rounded.objectives.push_back(dot(e, e, columns));
  return rounded;
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
                    "mse: choose the scale with the smallest error under the Hessian; auto: mse for formats of at most 16 values"};
  search.choices = {"auto", "mse", "off"};
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
    how.scale_search = search == "mse" ? ScaleSearch::mse : ScaleSearch::off;
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
  const bool searches = how.scale_search.value_or(count_of(grid) <= kFew ? ScaleSearch::mse : ScaleSearch::off) == ScaleSearch::mse;
  const Parts parts(weight, stored, searches);
  const bool is_informed = inputs != nullptr && !inputs->all_zero();
  std::vector<std::int64_t> picked;
  if (is_informed) picked = SampleJudge::rows_of(weight.rows);
  at::Tensor sampled;
  const at::Tensor wished = parts.survey(grid, picked, sampled, context);
  const TileScales scales = stored_scales(wished, grid);
  // What is wished for a part of the weight is stored with what the whole has in common.
  const auto on_grid = [&](const at::Tensor& other) {
    return grid.scale_grid == nullptr ? other : grid.scale_grid->stored(other, scales.common);
  };
  const auto finished = [&](CodedWeight coded) {
    coded.common_scale = scales.common;
    return coded;
  };
  const auto round_nearest = [&] {
    return parts.round(scales.values, context,
                       [&](const at::Tensor& rows, const at::Tensor& given) { return round_onto(rows, given, grid, stored, context); });
  };
  if (!is_informed) {
    context.note(why_uninformed(inputs, context));
    if (!searches) return finished(round_nearest());
    return finished(parts.round(wished, context, [&](const at::Tensor& rows, const at::Tensor& given) {
      return search_scales(given, grid, stored,
                           [&](const at::Tensor& tried) { return round_plainly(rows, on_grid(tried), grid, stored, context); });
    }));
  }

  const SampleJudge judge(sampled, weight.rows, stored, *inputs, grid, context);
  const FactorOptions options{how.damping ? *how.damping : best_damping(*inputs, judge, scales.values, grid, how.activation_order, context),
                              how.activation_order};
  const std::shared_ptr<const HessianFactor> factor = shared_factor(*inputs, options, context);
  CodedWeight coded = parts.round(wished, context, [&](const at::Tensor& rows, const at::Tensor& given) {
    const auto round = [&](const at::Tensor& tried) {
      return round_with_feedback(rows, on_grid(tried), grid, stored, *factor, context, how.block_columns);
    };
    return searches ? search_scales(given, grid, stored, round) : round(given).coded;
  });

  const SampleJudge::Verdict nearest = judge.verdict(round_onto(judge.weight(), judge.scales_of(scales.values), grid, judge.layout(), context));
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
  return finished(std::move(coded));
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
