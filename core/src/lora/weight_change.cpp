#include "lora/weight_change.h"

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>

#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qmill {
namespace {

constexpr std::int64_t kValuesPerGroup = 1 << 20;
constexpr std::int64_t kRowsPerGroup = 192;  // more make products no faster

std::int64_t columns_of(const at::Tensor& weight) { return weight.size(0) == 0 ? 0 : weight.numel() / weight.size(0); }

at::Tensor matrix(float* data, std::int64_t rows, std::int64_t columns) {
  return at::from_blob(data, {rows, columns}, at::TensorOptions().dtype(at::kFloat));
}

// Memory of this thread for `count` values, always aligned alike: the last bits of products depend on it.
class Scratch {
 public:
  float* get(std::int64_t count) {
    constexpr std::size_t kAlignment = 64;
    memory_.resize(static_cast<std::size_t>(count) * sizeof(float) + kAlignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return reinterpret_cast<float*>(memory_.data() + (kAlignment - address % kAlignment) % kAlignment);
  }

 private:
  std::vector<std::byte> memory_;
};

class LowRank final : public WeightChange {
 public:
  LowRank(at::Tensor up, at::Tensor down) : up_(std::move(up)), down_(std::move(down)) {}
  std::int64_t rows() const override { return up_.size(0); }
  std::int64_t columns() const override { return down_.size(1); }
  void compute(std::int64_t begin, std::int64_t end, float* out) const override {
    at::Tensor product = matrix(out, end - begin, columns());
    at::mm_out(product, up_.narrow(0, begin, end - begin), down_);
  }

 private:
  const at::Tensor up_, down_;
};

class Hadamard final : public WeightChange {
 public:
  Hadamard(LowRank first, LowRank second) : first_(std::move(first)), second_(std::move(second)) {}
  std::int64_t rows() const override { return first_.rows(); }
  std::int64_t columns() const override { return first_.columns(); }
  void compute(std::int64_t begin, std::int64_t end, float* out) const override {
    thread_local Scratch scratch;
    const std::int64_t count = (end - begin) * columns();
    float* other = scratch.get(count);
    first_.compute(begin, end, out);
    second_.compute(begin, end, other);
    for (std::int64_t i = 0; i < count; ++i) out[i] *= other[i];
  }

 private:
  const LowRank first_, second_;
};

class Kronecker final : public WeightChange {
 public:
  Kronecker(at::Tensor w1, at::Tensor w2) : w1_(std::move(w1)), w2_(std::move(w2)) {}
  std::int64_t rows() const override { return w1_.size(0) * w2_.size(0); }
  std::int64_t columns() const override { return w1_.size(1) * w2_.size(1); }
  void compute(std::int64_t begin, std::int64_t end, float* out) const override {
    const std::int64_t height = w2_.size(0), width = w2_.size(1), factors = w1_.size(1);
    const float* w1 = w1_.const_data_ptr<float>();
    const float* w2 = w2_.const_data_ptr<float>();
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t j = 0; j < factors; ++j) {
        const float factor = w1[row / height * factors + j];
        const float* values = w2 + row % height * width;
        for (std::int64_t i = 0; i < width; ++i) *out++ = factor * values[i];
      }
  }

 private:
  const at::Tensor w1_, w2_;
};

class Plain final : public WeightChange {
 public:
  explicit Plain(at::Tensor difference) : difference_(std::move(difference)) {}
  std::int64_t rows() const override { return difference_.size(0); }
  std::int64_t columns() const override { return columns_of(difference_); }
  void compute(std::int64_t begin, std::int64_t end, float* out) const override {
    const float* values = difference_.const_data_ptr<float>();
    std::copy(values + begin * columns(), values + end * columns(), out);
  }

 private:
  const at::Tensor difference_;
};

class HalvesSwapped final : public WeightChange {
 public:
  explicit HalvesSwapped(std::unique_ptr<WeightChange> change) : change_(std::move(change)) {}
  std::int64_t rows() const override { return change_->rows(); }
  std::int64_t columns() const override { return change_->columns(); }
  void compute(std::int64_t begin, std::int64_t end, float* out) const override {
    const std::int64_t half = rows() / 2;
    if (const std::int64_t stop = std::min(end, half); begin < stop) change_->compute(begin + half, stop + half, out);
    if (const std::int64_t start = std::max(begin, half); start < end)
      change_->compute(start - half, end - half, out + (start - begin) * columns());
  }

 private:
  const std::unique_ptr<WeightChange> change_;
};

// The change of one weight in groups of rows.
class Groups {
 public:
  Groups(at::Tensor& weight, const WeightChange& change, const ParallelLoop& parallel)
      : weight_(weight.mutable_data_ptr<float>()),
        rows_(weight.size(0)),
        columns_(columns_of(weight)),
        change_(change),
        parallel_(parallel) {
    if (change.rows() != rows_ || change.columns() != columns_)
      throw Error(ErrorKind::internal, "a change and its weight do not fit each other");
    if (columns_ != 0) size_ = std::clamp<std::int64_t>(kValuesPerGroup / columns_, 1, kRowsPerGroup);
  }

  std::int64_t count() const { return columns_ == 0 ? 0 : (rows_ + size_ - 1) / size_; }

  // body(group, first row, rows, their values, their change).
  template <class Body>
  void each(Body body) const {
    parallel_(count(), [&](std::int64_t group) {
      const OneThread one_thread;
      thread_local Scratch scratch;
      const std::int64_t begin = group * size_;
      const std::int64_t rows = std::min(size_, rows_ - begin);
      float* change = scratch.get(rows * columns_);
      change_.compute(begin, begin + rows, change);
      body(group, begin, rows, weight_ + begin * columns_, change);
    });
  }

  std::int64_t columns() const { return columns_; }

 private:
  float* weight_;
  const std::int64_t rows_, columns_;
  const WeightChange& change_;
  const ParallelLoop& parallel_;
  std::int64_t size_ = 1;
};

double factor_for(float norm_wanted, double squared_norm) {
  return squared_norm > 0 ? static_cast<double>(norm_wanted) / std::sqrt(squared_norm) : 0;
}

// w + strength * (factor * v - w).
float moved(float w, double v, double factor, double strength) {
  return static_cast<float>(static_cast<double>(w) + strength * (factor * v - static_cast<double>(w)));
}

double changed(float w, float change, double scale) { return static_cast<double>(w) + scale * static_cast<double>(change); }

void normalize_rows(const Groups& groups, double scale, double strength, const float* norms) {
  const std::int64_t columns = groups.columns();
  groups.each([&](std::int64_t, std::int64_t first, std::int64_t rows, float* weight, const float* change) {
    for (std::int64_t row = 0; row < rows; ++row, weight += columns, change += columns) {
      double squares = 0;
      for (std::int64_t i = 0; i < columns; ++i) {
        const double v = changed(weight[i], change[i], scale);
        squares += v * v;
      }
      const double factor = factor_for(norms[first + row], squares);
      for (std::int64_t i = 0; i < columns; ++i) weight[i] = moved(weight[i], changed(weight[i], change[i], scale), factor, strength);
    }
  });
}

// Column c of the weight's second dimension is the run of `run` values from c * run on.
void normalize_columns(const Groups& groups, double scale, double strength, const float* norms, std::int64_t count) {
  const std::int64_t columns = groups.columns();
  const std::int64_t run = columns / count;
  std::vector<std::vector<double>> sums(static_cast<std::size_t>(groups.count()), std::vector<double>(static_cast<std::size_t>(count)));
  groups.each([&](std::int64_t group, std::int64_t, std::int64_t rows, float* weight, const float* change) {
    std::vector<double>& squares = sums[static_cast<std::size_t>(group)];
    for (std::int64_t row = 0; row < rows; ++row, weight += columns, change += columns)
      for (std::int64_t i = 0; i < columns; ++i) {
        const double v = changed(weight[i], change[i], scale);
        squares[static_cast<std::size_t>(i / run)] += v * v;
      }
  });
  std::vector<double> factors(static_cast<std::size_t>(count));
  for (std::size_t c = 0; c < factors.size(); ++c) {
    double squares = 0;
    for (const std::vector<double>& part : sums) squares += part[c];
    factors[c] = factor_for(norms[c], squares);
  }
  groups.each([&](std::int64_t, std::int64_t, std::int64_t rows, float* weight, const float* change) {
    for (std::int64_t row = 0; row < rows; ++row, weight += columns, change += columns)
      for (std::int64_t i = 0; i < columns; ++i)
        weight[i] = moved(weight[i], changed(weight[i], change[i], scale), factors[static_cast<std::size_t>(i / run)], strength);
  });
}

}  // namespace

std::unique_ptr<WeightChange> low_rank_change(at::Tensor up, at::Tensor down) {
  return std::make_unique<LowRank>(std::move(up), std::move(down));
}

std::unique_ptr<WeightChange> hadamard_change(at::Tensor a1, at::Tensor b1, at::Tensor a2, at::Tensor b2) {
  return std::make_unique<Hadamard>(LowRank(std::move(a1), std::move(b1)), LowRank(std::move(a2), std::move(b2)));
}

std::unique_ptr<WeightChange> kronecker_change(at::Tensor w1, at::Tensor w2) {
  return std::make_unique<Kronecker>(std::move(w1), std::move(w2));
}

std::unique_ptr<WeightChange> plain_change(at::Tensor difference) { return std::make_unique<Plain>(std::move(difference)); }

std::unique_ptr<WeightChange> halves_swapped(std::unique_ptr<WeightChange> change) {
  return std::make_unique<HalvesSwapped>(std::move(change));
}

at::Tensor contract_core(const at::Tensor& core, const at::Tensor& factor) {
  const OneThread one_thread;
  const std::int64_t i = core.size(0), j = core.size(1), x = core.numel() / (i * j), c = factor.size(1);
  // [i, x, j] [j, c] -> [i, x, c] -> [i, c, x]
  const at::Tensor flat = core.reshape({i, j, x}).transpose(1, 2).reshape({i * x, j});
  return at::mm(flat, factor).view({i, x, c}).transpose(1, 2).reshape({i, c * x}).contiguous();
}

void add_change(at::Tensor& weight, const WeightChange& change, double scale, double strength, const Magnitude* magnitude,
                const ParallelLoop& parallel) {
  const Groups groups(weight, change, parallel);
  if (magnitude == nullptr) {
    const auto factor = static_cast<float>(strength * scale);
    groups.each([&](std::int64_t, std::int64_t, std::int64_t rows, float* out, const float* difference) {
      for (std::int64_t i = 0; i < rows * groups.columns(); ++i) out[i] += factor * difference[i];
    });
  } else if (magnitude->of_rows) {
    normalize_rows(groups, scale, strength, magnitude->norms.const_data_ptr<float>());
  } else {
    normalize_columns(groups, scale, strength, magnitude->norms.const_data_ptr<float>(), magnitude->norms.size(0));
  }
}

}  // namespace qmill
