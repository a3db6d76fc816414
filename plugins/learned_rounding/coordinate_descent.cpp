#include "coordinate_descent.h"

#include "schedule.h"

#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

namespace learned_rounding {

using qmill::LayerContext;

namespace {

constexpr std::int64_t kBlockColumns = 64;  // between products
constexpr double kWorthOfPass = 0.002;            // a pass that gains less is one in vain

at::Tensor view(std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  values.resize(static_cast<std::size_t>(rows * columns));
  return at::from_blob(values.data(), {rows, columns}, at::TensorOptions().dtype(at::kFloat));
}

// Some rows of a weight: E, and G = E H kept up to date.
class Slice {
 public:
  Slice(const TileRounder& rounder, std::int64_t first, std::int64_t count, const at::Tensor& hessian, std::int8_t* codes)
      : rounder_(rounder),
        first_(first),
        count_(count),
        columns_(rounder.columns()),
        hessian_(hessian),
        h_(hessian.const_data_ptr<float>()),
        codes_(codes + first * columns_) {
    thread_local std::vector<float> errors, gradient, moves;
    errors_ = view(errors, count, columns_);
    gradient_ = view(gradient, count, columns_);
    moves_ = view(moves, count, kBlockColumns);
    for (std::int64_t row = 0; row < count; ++row)
      rounder.errors(first + row, codes_ + row * columns_, errors_.mutable_data_ptr<float>() + row * columns_);
    at::mm_out(gradient_, errors_, hessian);
  }

  double objective() const { return qmill::dot(errors_.const_data_ptr<float>(), gradient_.const_data_ptr<float>(), errors_.numel()); }

  // Returns by how much the objective fell.
  double pass() {
    double gain = 0;
    for (std::int64_t begin = 0; begin < columns_; begin += kBlockColumns) {
      const std::int64_t end = std::min(columns_, begin + kBlockColumns);
      auto* moves = moves_.mutable_data_ptr<float>();
      std::fill_n(moves, count_ * kBlockColumns, 0.0f);
      bool moved = false;
      for (std::int64_t row = 0; row < count_; ++row) {
        const double gained = move_row(row, begin, end, moves + row * kBlockColumns);
        gain += gained;
        moved = moved || gained > 0;
      }
      if (moved) at::addmm_out(gradient_, gradient_, moves_.narrow(1, 0, end - begin), hessian_.narrow(0, begin, end - begin));
    }
    return gain;
  }

 private:
  double move_row(std::int64_t row, std::int64_t begin, std::int64_t end, float* moves) {
    float gradient[kBlockColumns];
    std::copy_n(gradient_.const_data_ptr<float>() + row * columns_ + begin, end - begin, gradient);
    float* errors = errors_.mutable_data_ptr<float>() + row * columns_;
    std::int8_t* codes = codes_ + row * columns_;
    const float* weights = rounder_.weight(first_ + row);
    double gain = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      const float* h = h_ + k * columns_;
      if (!(h[k] > 0)) continue;
      const float slope = gradient[k - begin];
      const float scale = rounder_.scale(first_ + row, k);
      const int code = rounder_.grid().nearest((weights[k] + errors[k] - slope / h[k]) / scale);
      if (code == codes[k]) continue;
      const float error = rounder_.grid().value(code) * scale - weights[k];
      const float move = error - errors[k];
      const double change =
          static_cast<double>(move) * (2 * static_cast<double>(slope) + static_cast<double>(move) * static_cast<double>(h[k]));
      if (!(change < 0)) continue;
      gain -= change;
      codes[k] = static_cast<std::int8_t>(code);
      errors[k] = error;
      moves[k - begin] = move;
      for (std::int64_t j = k + 1; j < end; ++j) gradient[j - begin] += move * h[j];
    }
    return gain;
  }

  const TileRounder& rounder_;
  const std::int64_t first_;
  const std::int64_t count_;
  const std::int64_t columns_;
  const at::Tensor& hessian_;
  const float* h_;
  std::int8_t* codes_;
  at::Tensor errors_;
  at::Tensor gradient_;
  at::Tensor moves_;
};

}  // namespace

Descent descend(const TileRounder& rounder, const at::Tensor& start, const at::Tensor& hessian, const Settings& settings,
                LayerContext& context) {
  Descent result{start.clone()};
  auto* codes = result.codes.mutable_data_ptr<std::int8_t>();
  std::vector<std::int64_t> passes(static_cast<std::size_t>(slices(rounder.rows())));
  context.parallel(slices(rounder.rows()), [&](std::int64_t task) {
    const qmill::OneThread one_thread;
    const std::int64_t first = task * kSliceRows;
    Slice slice(rounder, first, std::min(kSliceRows, rounder.rows() - first), hessian, codes);
    const double before = slice.objective();
    double now = before;
    StopRule stop(settings, kWorthOfPass);
    std::int64_t& done = passes[static_cast<std::size_t>(task)];
    while (done < settings.iterations && before > 0) {
      context.check_cancelled();
      const double gain = slice.pass();
      ++done;
      if (gain == 0) break;
      now -= gain;
      if (stop.stops_after(now / before, settings.schedule.rate)) break;
    }
  });
  result.iterations = *std::max_element(passes.begin(), passes.end());
  return result;
}

}  // namespace learned_rounding
