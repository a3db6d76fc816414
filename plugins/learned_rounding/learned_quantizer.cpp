#include "learned_quantizer.h"

#include "projected_rounding.h"
#include "schedule.h"
#include "soft_rounding.h"

#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/numerics/descent.h>
#include <qmill/numerics/products.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/sample_judge.h>

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <utility>

namespace learned_rounding {

using qmill::CodedWeight;
using qmill::Grid;
using qmill::LayerContext;
using qmill::LayerInputs;
using qmill::Layout;
using qmill::multiply;
using qmill::SampleJudge;

namespace {

constexpr double kWorthOfPass = 0.002;  // coordinate descent: a pass that gains less is one in vain
constexpr float kRidge = 0.1f;  // soft rounding: keeps the error of what the directions do not see from growing

class ProjectedError final : public ErrorObjective {
 public:
  ProjectedError(const Directions& directions, LayerContext& context) : directions_(directions), context_(context) {}

  // U P V^T, and a part of E itself.
  double gradient(const at::Tensor& errors, at::Tensor& gradient) const override {
    const at::Tensor projected = project(directions_, errors, context_);
    at::Tensor up = matrix(errors.size(0), directions_.rank(), context_);
    multiply(directions_.u, projected, up, context_);
    multiply(up, directions_.v.t(), gradient, context_);
    const auto* e = errors.const_data_ptr<float>();
    auto* g = gradient.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < errors.numel(); ++i) g[i] += kRidge * e[i];
    return squared_norm(projected, context_);
  }

 private:
  const Directions& directions_;
  LayerContext& context_;
};

class CalibratedError final : public ErrorObjective {
 public:
  CalibratedError(const at::Tensor& hessian, LayerContext& context) : hessian_(hessian), context_(context) {}

  // E H; the value is its product with E.
  double gradient(const at::Tensor& errors, at::Tensor& gradient) const override {
    multiply(errors, hessian_, gradient, context_);
    return qmill::dot(errors.const_data_ptr<float>(), gradient.const_data_ptr<float>(), errors.numel());
  }

 private:
  const at::Tensor& hessian_;
  LayerContext& context_;
};

CodedWeight round_under_inputs(const at::Tensor& weight, const Grid& grid, const Layout& layout, const LayerInputs& inputs,
                               const Settings& settings, LayerContext& context) {
  qmill::CalibratedRounding how = qmill::read_calibrated_options(context.target().options);
  how.activation_order = true;
  CodedWeight best = qmill::round_calibrated(weight, grid, layout, &inputs, how, context);
  if (inputs.all_zero() || inputs.too_few() || settings.iterations == 0) return best;

  const std::int64_t rows = weight.size(0);
  const at::Tensor picked = at::tensor(SampleJudge::rows_of(rows), at::kLong);
  const SampleJudge judge(at::index_select(weight, 0, picked), rows, layout, inputs, grid, context);
  SampleJudge::Verdict verdict = judge.verdict(judge.sample_of(best));
  const auto keep_if_better = [&](const at::Tensor& codes) {
    CodedWeight tried = best;
    tried.codes = codes;
    const SampleJudge::Verdict found = judge.verdict(judge.sample_of(tried));
    if (!judge.prefers(found, verdict)) return;
    verdict = found;
    best = std::move(tried);
    best.statistics["objective"] = found.objective;
    if (judge.has_held_out()) best.statistics["output_error"] = found.output_error;
  };

  const TileRounder rounder(weight, {best.scales, best.common_scale}, grid, layout);
  const at::Tensor hessian = qmill::damped(inputs.hessian, best.statistics.at("damping"));
  const auto make_rule = [&]() -> qmill::DescentRule {
    return [&settings, left = settings.iterations, stop = StopRule(settings, kWorthOfPass)](double objective) mutable {
      return --left > 0 && !stop.stops_after(objective, settings.schedule.rate);
    };
  };
  const qmill::Descent descent = qmill::descend(weight, rounder.codes(), best.codes, hessian, make_rule, context);
  keep_if_better(descent.codes);
  std::int64_t iterations = descent.passes;
  if (settings.variant != Variant::original) {
    const SoftRounding soft = round_softly(rounder, best.codes, CalibratedError(hessian, context), settings, context);
    keep_if_better(soft.codes);
    iterations += soft.iterations;
  }
  best.statistics["iterations"] = static_cast<double>(iterations);
  return best;
}

CodedWeight round_along_directions(const at::Tensor& weight, const Grid& grid, const Layout& layout, const Settings& settings,
                                   LayerContext& context) {
  context.note("without calibration data it follows the weight's own dominant directions, which may raise the error on real inputs");
  const qmill::TileScales scales = qmill::tile_scales(weight, grid, layout, context);
  CodedWeight nearest = qmill::round_onto(weight, scales, grid, layout, context);
  CodedWeight result = nearest;
  if (settings.iterations == 0) return result;
  const TileRounder rounder(weight, scales, grid, layout);
  const Directions directions = dominant_directions(weight, settings, context);
  const ProjectedRounding projected = round_projected(rounder, nearest.codes, directions, settings, context);
  result.codes = projected.codes;
  double loss = projected.loss;
  std::int64_t iterations = projected.iterations;
  if (settings.variant != Variant::original) {
    const SoftRounding soft = round_softly(rounder, result.codes, ProjectedError(directions, context), settings, context);
    if (soft.value < soft.value_start) {
      result.codes = soft.codes;
      loss = std::sqrt(soft.value);
    }
    iterations += soft.iterations;
  }
  result.statistics = {{"rank", static_cast<double>(directions.rank())},
                       {"iterations", static_cast<double>(iterations)},
                       {"objective_rtn", projected.loss_nearest},
                       {"objective", loss}};
  const double squares = squared_norm(all_errors(rounder, nearest.codes, context), context);
  if (squares > 0) result.statistics["mse_ratio"] = squared_norm(all_errors(rounder, result.codes, context), context) / squares;
  return result;
}

}  // namespace

LearnedQuantizer::LearnedQuantizer(Variant variant) : variant_(variant) {
  switch (variant) {
    case Variant::original:
      info_.name = "learned_rounding";
      info_.aliases = {"original"};
      info_.summary = "chooses integers so that the error is small on real inputs, or along the weight's dominant directions";
      break;
    case Variant::adamw:
      info_.name = "adamw";
      info_.summary = "learned rounding, and then AdaRound with AdamW: slow";
      break;
    case Variant::radam:
      info_.name = "radam";
      info_.summary = "learned rounding, and then AdaRound with RAdam: slow";
      break;
  }
  info_.options = option_schema(variant);
  info_.uses_calibration = true;
  info_.cost = variant == Variant::original ? 60 : 2000;
}

void LearnedQuantizer::adapt(qmill::StorageWish& wish, const qmill::Options& options) const {
  read_settings(options, variant_);
  GridQuantizer::adapt(wish, options);
}

CodedWeight LearnedQuantizer::choose_codes(at::Tensor weight, const Grid& grid, const Layout& layout, LayerContext& context) const {
  const Settings settings = read_settings(context.target().options, variant_);
  for (const std::string& note : idle_options(context.target().options)) context.note(note);
  Layout stored = layout;  // `weight` is in its basis already
  stored.rotation_group = 0;
  const std::shared_ptr<const LayerInputs> inputs = qmill::inputs_in_stored_basis(layout, context);
  return inputs ? round_under_inputs(weight, grid, stored, *inputs, settings, context)
                : round_along_directions(weight, grid, stored, settings, context);
}

}  // namespace learned_rounding
