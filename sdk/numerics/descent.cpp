#include <qmill/numerics/descent.h>

#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace qmill {
namespace {

constexpr std::int64_t kColumnsPerProduct = 64;  // between products
constexpr std::int64_t kDescentRows = 192;  // a product on one thread; their number depends on nothing, so neither do the results

at::Tensor view(std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  values.resize(static_cast<std::size_t>(rows * columns));
  return at::from_blob(values.data(), {rows, columns}, at::TensorOptions().dtype(at::kFloat));
}

// Some rows of a weight: E, and G = E H kept up to date.
class DescentSlice {
 public:
  DescentSlice(const at::Tensor& weight, const TileCodes& tiles, std::int64_t first, std::int64_t count, const at::Tensor& hessian, std::int8_t* codes)
      : tiles_(tiles),
        weights_(weight.const_data_ptr<float>() + first * tiles.columns()),
        first_(first),
        count_(count),
        columns_(tiles.columns()),
        hessian_(hessian),
        h_(hessian.const_data_ptr<float>()),
        codes_(codes + first * columns_) {
    thread_local std::vector<float> errors, gradient, moves;
    errors_ = view(errors, count, columns_);
    gradient_ = view(gradient, count, columns_);
    moves_ = view(moves, count, kColumnsPerProduct);
    auto* out = errors_.mutable_data_ptr<float>();
    for (std::int64_t row = 0; row < count; ++row) {
      tiles.decode(first + row, codes_ + row * columns_, out + row * columns_);
      for (std::int64_t i = row * columns_; i < (row + 1) * columns_; ++i) out[i] -= weights_[i];
    }
    at::mm_out(gradient_, errors_, hessian);
  }

  double objective() const { return dot(errors_.const_data_ptr<float>(), gradient_.const_data_ptr<float>(), errors_.numel()); }

  // Returns by how much the objective fell.
  double pass() {
    double gain = 0;
    for (std::int64_t begin = 0; begin < columns_; begin += kColumnsPerProduct) {
      const std::int64_t end = std::min(columns_, begin + kColumnsPerProduct);
      auto* moves = moves_.mutable_data_ptr<float>();
      std::fill_n(moves, count_ * kColumnsPerProduct, 0.0f);
      bool moved = false;
      for (std::int64_t row = 0; row < count_; ++row) {
        const double gained = move_row(row, begin, end, moves + row * kColumnsPerProduct);
        gain += gained;
        moved = moved || gained > 0;
      }
      if (moved) at::addmm_out(gradient_, gradient_, moves_.narrow(1, 0, end - begin), hessian_.narrow(0, begin, end - begin));
    }
    return gain;
  }

 private:
  double move_row(std::int64_t row, std::int64_t begin, std::int64_t end, float* moves) {
    float gradient[kColumnsPerProduct];
    std::copy_n(gradient_.const_data_ptr<float>() + row * columns_ + begin, end - begin, gradient);
    float* errors = errors_.mutable_data_ptr<float>() + row * columns_;
    std::int8_t* codes = codes_ + row * columns_;
    const float* weights = weights_ + row * columns_;
    double gain = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      const float* h = h_ + k * columns_;
      if (!(h[k] > 0)) continue;
      const float slope = gradient[k - begin];
      const int code = tiles_.nearest(first_ + row, k, weights[k] + errors[k] - slope / h[k]);
      if (code == codes[k]) continue;
      const float error = tiles_.value(first_ + row, k, code) - weights[k];
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

  const TileCodes& tiles_;
  const float* weights_;
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

MakeDescentRule at_most(std::int64_t passes) {
  return [passes]() -> DescentRule { return [left = passes](double) mutable { return --left > 0; }; };
}

Descent descend(const at::Tensor& weight, const TileCodes& tiles, const at::Tensor& start, const at::Tensor& hessian,
                const MakeDescentRule& make_rule, LayerContext& context) {
  Descent result{start.clone()};
  const std::int64_t rows = weight.size(0);
  auto* codes = result.codes.mutable_data_ptr<std::int8_t>();
  const std::int64_t tasks = (rows + kDescentRows - 1) / kDescentRows;
  std::vector<std::int64_t> passes(static_cast<std::size_t>(tasks));
  context.parallel(tasks, [&](std::int64_t task) {
    const OneThread one_thread;
    const std::int64_t first = task * kDescentRows;
    DescentSlice slice(weight, tiles, first, std::min(kDescentRows, rows - first), hessian, codes);
    const double before = slice.objective();
    double now = before;
    const DescentRule goes_on = make_rule();
    std::int64_t& done = passes[static_cast<std::size_t>(task)];
    while (before > 0) {
      context.check_cancelled();
      const double gain = slice.pass();
      ++done;
      if (gain == 0) break;
      now -= gain;
      if (!goes_on(now / before)) break;
    }
  });
  if (!passes.empty()) result.passes = *std::max_element(passes.begin(), passes.end());
  return result;
}

at::Tensor damped(const at::Tensor& hessian, double damping) {
  at::Tensor result = hessian.clone();
  auto* values = result.mutable_data_ptr<float>();
  const std::int64_t step = hessian.size(0) + 1;
  double mean = 0;
  for (std::int64_t i = 0; i < result.numel(); i += step) mean += static_cast<double>(values[i]) / static_cast<double>(hessian.size(0));
  for (std::int64_t i = 0; i < result.numel(); i += step) values[i] += static_cast<float>(damping * mean);
  return result;
}

}  // namespace qmill
