#include <qmill/numerics/ldlq.h>

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>

#include <ATen/ops/addmm.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace qmill {
namespace {

// Columns that are factored together, and rows of them that one task takes. Chosen for speed; they do not depend on the number of
// threads, so neither do the results.
constexpr std::int64_t kPanel = 128;
constexpr std::int64_t kStrip = 128;

// F32 halves the cost of the factorization, but loses cond(H) units of its last place: F64 where that could move integers.
constexpr std::int64_t kWideColumns = 1024;  // up to here F64 costs nothing that anyone would notice
constexpr double kNarrowCondition = 1e5;

std::int64_t panels(std::int64_t columns) { return (columns + kPanel - 1) / kPanel; }

Error not_definite(double damping) {
  return Error(ErrorKind::numeric, fmt::format("the Hessian is not positive definite, with {:.3g} added to its diagonal", damping),
               "raise the damping, or calibrate with more rows");
}

template <class Value>
class Factorization {
 public:
  Factorization(const HessianFactor& shape, LayerContext& context)
      : context_(context),
        columns_(static_cast<std::int64_t>(shape.order.size())),
        damping_(shape.damping),
        root_(context.allocate(std::array{columns_, columns_}, std::is_same_v<Value, double> ? DType::f64 : DType::f32)),
        data_(root_.mutable_data_ptr<Value>()) {}

  // The upper triangle of H in the factor's order, damped. Dead inputs get the mean of the diagonal: any positive value gives their
  // column no part in the others.
  template <class Source>
  void load(const Source* hessian, const std::vector<std::int64_t>& order, double mean) {
    context_.parallel(panels(columns_), [&](std::int64_t panel) {
      const std::int64_t end = std::min(columns_, (panel + 1) * kPanel);
      for (std::int64_t i = panel * kPanel; i < end; ++i) {
        const Source* in = hessian + order[static_cast<std::size_t>(i)] * columns_;
        Value* out = data_ + i * columns_;
        for (std::int64_t j = i; j < columns_; ++j) out[j] = static_cast<Value>(in[order[static_cast<std::size_t>(j)]]);
        const double diagonal = in[order[static_cast<std::size_t>(i)]];
        out[i] = static_cast<Value>((diagonal == 0 ? mean : diagonal) + damping_);
      }
    });
  }

  // R R^T = H with R upper, from the last panel to the first; each panel is first reduced by those to its right.
  void run() {
    for (std::int64_t panel = panels(columns_); panel-- > 0;) {
      context_.check_cancelled();
      const std::int64_t begin = panel * kPanel;
      const std::int64_t end = std::min(columns_, begin + kPanel);
      if (end < columns_)
        for_strips(end, [&](std::int64_t row, std::int64_t row_end) {
          at::Tensor target = block(row, row_end, begin, end);
          at::addmm_out(target, target, block(row, row_end, end, columns_), block(begin, end, end, columns_).t(), 1, -1);
        });
      at::Tensor corner = block(begin, end, begin, end);
      const at::Tensor inverse = factor_corner(corner).to(root_.scalar_type());
      for_strips(begin, [&](std::int64_t row, std::int64_t row_end) {
        at::Tensor target = block(row, row_end, begin, end);
        target.copy_(at::mm(target, inverse));
      });
    }
  }

  void store(HessianFactor& factor) {
    factor.pivots.resize(static_cast<std::size_t>(columns_));
    for (std::int64_t k = 0; k < columns_; ++k) {
      const auto root = static_cast<double>(data_[k * columns_ + k]);
      factor.pivots[static_cast<std::size_t>(k)] = root * root;
      // LAPACK lets through what is not a number.
      if (!(root > 0) || !std::isfinite(root * root)) throw not_definite(damping_);
    }
    factor.coefficients = context_.allocate(std::array{columns_, columns_}, DType::f32);
    auto* out = factor.coefficients.template mutable_data_ptr<float>();
    context_.parallel(panels(columns_), [&](std::int64_t panel) {
      constexpr std::int64_t kTile = 32;  // of a transposition in the cache
      const std::int64_t begin = panel * kPanel;
      const std::int64_t end = std::min(columns_, begin + kPanel);
      for (std::int64_t j0 = 0; j0 < columns_; j0 += kTile)
        for (std::int64_t k0 = begin; k0 < end; k0 += kTile)
          for (std::int64_t k = k0; k < std::min(end, k0 + kTile); ++k) {
            const Value scale = 1 / data_[k * columns_ + k];
            for (std::int64_t j = j0; j < std::min(columns_, j0 + kTile); ++j)
              out[k * columns_ + j] = j < k ? static_cast<float>(data_[j * columns_ + k] * scale) : 0.0f;
          }
    });
  }

 private:
  at::Tensor block(std::int64_t row, std::int64_t row_end, std::int64_t column, std::int64_t column_end) const {
    return root_.narrow(0, row, row_end - row).narrow(1, column, column_end - column);
  }

  template <class Body>
  void for_strips(std::int64_t rows, Body body) {
    context_.parallel((rows + kStrip - 1) / kStrip, [&](std::int64_t strip) {
      const OneThread one_thread;
      body(strip * kStrip, std::min(rows, (strip + 1) * kStrip));
    });
  }

  // Factors a diagonal block in place and returns the inverse of R^T, in F64. LAPACK's R is lower: the block goes in backwards.
  at::Tensor factor_corner(at::Tensor& corner) const {
    const OneThread one_thread;
    const at::Tensor symmetric = corner.to(at::kDouble).triu();
    const auto [lower, info] = at::linalg_cholesky_ex(symmetric.flip({0, 1}));
    if (info.template item<int>() != 0) throw not_definite(damping_);
    const at::Tensor upper = lower.flip({0, 1}).contiguous();
    corner.copy_(upper);
    return at::linalg_solve_triangular(upper, at::eye(upper.size(0), at::kDouble), true).t();
  }

  LayerContext& context_;
  const std::int64_t columns_;
  const double damping_;
  at::Tensor root_;
  Value* data_;
};

// Whether every value is finite, and how large they are together.
template <class Source>
double squared_norm(const Source* hessian, std::int64_t columns, LayerContext& context) {
  std::vector<double> sums(static_cast<std::size_t>(columns));
  context.parallel(panels(columns), [&](std::int64_t panel) {
    constexpr std::int64_t kParts = 8;  // sums that do not wait for each other
    for (std::int64_t i = panel * kPanel; i < std::min(columns, (panel + 1) * kPanel); ++i) {
      const Source* row = hessian + i * columns;
      double parts[kParts] = {};
      const auto add = [&](std::int64_t j, std::int64_t part) {
        const double value = row[j];
        parts[part] += value * value;
      };
      std::int64_t j = 0;
      for (; j + kParts <= columns; j += kParts)
        for (std::int64_t part = 0; part < kParts; ++part) add(j + part, part);
      for (; j < columns; ++j) add(j, 0);
      sums[static_cast<std::size_t>(i)] = std::accumulate(parts, parts + kParts, 0.0);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class Source>
HessianFactor factor_values(const Source* hessian, std::int64_t columns, const FactorOptions& options, LayerContext& context) {
  const double squares = squared_norm(hessian, columns, context);
  if (!std::isfinite(squares)) throw Error(ErrorKind::numeric, "the Hessian has values that are not finite", "repair the calibration data");
  HessianFactor factor;
  factor.order.resize(static_cast<std::size_t>(columns));
  std::iota(factor.order.begin(), factor.order.end(), 0);
  const auto diagonal = [&](std::int64_t column) { return static_cast<double>(hessian[column * columns + column]); };
  double mean = 0;
  for (const std::int64_t column : factor.order) {
    if (diagonal(column) == 0) ++factor.dead_columns;
    mean += diagonal(column) / static_cast<double>(columns);
  }
  if (squares == 0)
    throw Error(ErrorKind::numeric, "the Hessian is zero: the inputs of this layer were all zero, or so small that their squares are",
                "calibrate with other inputs");
  if (!(mean > 0))
    throw Error(ErrorKind::numeric, fmt::format("the Hessian is not positive definite: the mean of its diagonal is {:.3g}", mean),
                "repair the calibration data");
  if (options.activation_order) {
    std::vector<double> weights(static_cast<std::size_t>(columns));  // of the group of each column
    for (std::int64_t first = 0; first < columns; first += options.group_columns) {
      const std::int64_t end = std::min(columns, first + options.group_columns);
      double sum = 0;
      for (std::int64_t column = first; column < end; ++column) sum += diagonal(column);
      std::fill(weights.begin() + first, weights.begin() + end, sum / static_cast<double>(end - first));
    }
    const auto group = [&](std::int64_t column) { return column / options.group_columns; };
    std::stable_sort(factor.order.begin(), factor.order.end(), [&](std::int64_t a, std::int64_t b) {
      const double left = weights[static_cast<std::size_t>(a)], right = weights[static_cast<std::size_t>(b)];
      return left != right ? left > right : group(a) < group(b);
    });
  }
  factor.damping = options.damping * mean;
  const auto run = [&](auto factorization) {
    factorization.load(hessian, factor.order, mean);
    factorization.run();
    factorization.store(factor);
  };
  if (columns <= kWideColumns || std::sqrt(squares) > kNarrowCondition * factor.damping)
    run(Factorization<double>(factor, context));
  else
    run(Factorization<float>(factor, context));
  return factor;
}

}  // namespace

HessianFactor factor_hessian(const at::Tensor& hessian, std::int64_t columns, const FactorOptions& options, LayerContext& context) {
  if (hessian.dim() != 2 || hessian.size(0) != columns || hessian.size(1) != columns)
    throw Error(ErrorKind::input,
                fmt::format("the Hessian has the shape [{}], expected [{},{}]", fmt::join(hessian.sizes(), ","), columns, columns));
  return hessian.scalar_type() == at::kDouble ? factor_values(hessian.const_data_ptr<double>(), columns, options, context)
                                              : factor_values(hessian.const_data_ptr<float>(), columns, options, context);
}

}  // namespace qmill
