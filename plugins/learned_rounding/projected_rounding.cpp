#include "projected_rounding.h"

#include "schedule.h"

#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>

#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace learned_rounding {

using qmill::LayerContext;
using qmill::multiply;

namespace {

constexpr double kStepAtOne = 1.5;
constexpr double kLargestStep = 0.75;
constexpr double kWorthOfStall = 0.1;  // early_stop_stall iterations that gain less are in vain

double step_size(double rate, double loss) { return rate / kUsualRate * std::min(kLargestStep, kStepAtOne * loss * loss * loss); }

// C += step P.
void add_scaled(at::Tensor& c, const at::Tensor& p, double step) {
  auto* out = c.mutable_data_ptr<float>();
  const auto* in = p.const_data_ptr<float>();
  const auto factor = static_cast<float>(step);
  for (std::int64_t i = 0; i < c.numel(); ++i) out[i] += factor * in[i];
}

// Codes, and what they leave of E V.
class State {
 public:
  State(const TileRounder& rounder, const at::Tensor& start, const Directions& directions, LayerContext& context)
      : rounder_(rounder),
        directions_(directions),
        context_(context),
        v_rows_(directions.v.t()),
        codes_(start.clone()),
        uc_(matrix(rounder.rows(), directions.rank(), context)),
        errors_v_(matrix(rounder.rows(), directions.rank(), context)) {
    multiply(all_errors(rounder, start, context), directions.v, errors_v_, context);
  }

  const at::Tensor& codes() const { return codes_; }

  at::Tensor projected_error() const { return project_rows(directions_, errors_v_, context_); }  // U^T E V

  // To the codes nearest to W - U C V^T. These values are never in memory as a whole.
  void move_to(const at::Tensor& c) {
    multiply(directions_.u, c, uc_, context_);
    context_.parallel(slices(rounder_.rows()), [&](std::int64_t task) {
      context_.check_cancelled();
      const qmill::OneThread one_thread;
      const std::int64_t first = task * kSliceRows, count = std::min(kSliceRows, rounder_.rows() - first);
      thread_local std::vector<float> shifts;
      thread_local std::vector<std::int8_t> found;
      shifts.resize(static_cast<std::size_t>(count * rounder_.columns()));
      found.resize(static_cast<std::size_t>(rounder_.columns()));
      at::Tensor slice = at::from_blob(shifts.data(), {count, rounder_.columns()}, at::TensorOptions().dtype(at::kFloat));
      at::mm_out(slice, uc_.narrow(0, first, count), v_rows_);
      for (std::int64_t row = 0; row < count; ++row) {
        rounder_.round_shifted(first + row, shifts.data() + row * rounder_.columns(), found.data());
        move_row(first + row, found.data());
      }
    });
  }

 private:
  // Few codes change in one iteration: E V follows them one by one, at a tenth of the cost of a product.
  void move_row(std::int64_t row, const std::int8_t* found) {
    const std::int64_t rank = directions_.rank();
    std::int8_t* codes = codes_.mutable_data_ptr<std::int8_t>() + row * rounder_.columns();
    float* errors_v = errors_v_.mutable_data_ptr<float>() + row * rank;
    const auto* v = directions_.v.const_data_ptr<float>();
    for (std::int64_t k = 0; k < rounder_.columns(); ++k) {
      if (found[k] == codes[k]) continue;
      const float move = rounder_.decoded(row, k, found[k]) - rounder_.decoded(row, k, codes[k]);
      codes[k] = found[k];
      for (std::int64_t j = 0; j < rank; ++j) errors_v[j] += move * v[k * rank + j];
    }
  }

  const TileRounder& rounder_;
  const Directions& directions_;
  LayerContext& context_;
  at::Tensor v_rows_;
  at::Tensor codes_;
  at::Tensor uc_;
  at::Tensor errors_v_;
};

}  // namespace

ProjectedRounding round_projected(const TileRounder& rounder, const at::Tensor& nearest, const Directions& directions,
                                  const Settings& settings, LayerContext& context) {
  State state(rounder, nearest, directions, context);
  at::Tensor projected = state.projected_error();
  ProjectedRounding result{nearest.clone()};
  result.loss_nearest = result.loss = std::sqrt(squared_norm(projected, context));
  if (!(result.loss_nearest > 0)) return result;

  RateSchedule schedule(settings.schedule, rounder.rows(), rounder.columns());
  StopRule stop(settings, kWorthOfStall);
  at::Tensor c = at::zeros({directions.rank(), directions.rank()}, at::kFloat);
  double loss = 1;
  while (result.iterations < settings.iterations) {
    add_scaled(c, projected, step_size(schedule.rate(), loss));
    state.move_to(c);
    ++result.iterations;
    projected = state.projected_error();
    const double found = std::sqrt(squared_norm(projected, context));
    if (found < result.loss) {
      result.loss = found;
      result.codes.copy_(state.codes());
    }
    loss = found / result.loss_nearest;
    schedule.after(loss);
    if (stop.stops_after(loss, schedule.rate())) break;
  }
  return result;
}

}  // namespace learned_rounding
