#include "report/measure.h"

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>

namespace qmill {
namespace {

constexpr std::int64_t kValuesPerTask = 1 << 17;
constexpr std::int64_t kValuesPerProduct = 1 << 18;  // of W: enough for efficient products, and two of them fit the cache
constexpr std::int64_t kValuesPerStep = 8192;        // stay in the cache from decoding to comparing
constexpr std::int64_t kInputsPerProduct = 1024;

double sum_of_squares(const at::Tensor& values) {
  return dot(values.const_data_ptr<float>(), values.const_data_ptr<float>(), values.numel());
}

void add_squared_outputs(const at::Tensor& inputs, const at::Tensor& weights, double& sum) {
  const at::Tensor columns = weights.t();
  for (std::int64_t row = 0; row < inputs.size(0); row += kInputsPerProduct)
    sum += sum_of_squares(at::mm(inputs.narrow(0, row, std::min(kInputsPerProduct, inputs.size(0) - row)), columns));
}

void subtract(const float* a, float* b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) b[i] = a[i] - b[i];
}

// One measurement, group by group of rows.
class Pass {
 public:
  Pass(const at::Tensor& weight, std::span<const RowDecoder> versions, const MeasuredInputs& inputs)
      : rows_(weight.dim() == 0 ? 1 : weight.size(0)),
        columns_(rows_ == 0 ? 0 : weight.numel() / rows_),
        original_(plain_rows(weight)),
        versions_(versions),
        mean_(inputs.mean.defined() ? inputs.mean.contiguous() : inputs.mean) {
    const auto fits = [&](const at::Tensor& known, std::int64_t dimensions) {
      return weight.dim() == 2 && known.dim() == dimensions && known.size(-1) == columns_ && known.scalar_type() == at::kFloat;
    };
    if ((inputs.rows.defined() && !fits(inputs.rows, 2)) || (mean_.defined() && !fits(mean_, 1)))
      throw Error(ErrorKind::internal, "inputs do not fit the weight that they are measured with");
    if (inputs.rows.defined() && inputs.rows.size(0) != 0) inputs_ = inputs.rows.contiguous();
  }

  Measurement run(TaskPool& tasks) {
    const std::int64_t width = std::max<std::int64_t>(1, columns_);
    const std::int64_t group = inputs_.defined() ? std::clamp<std::int64_t>(kValuesPerProduct / width, 16, 1024)
                                                 : std::max<std::int64_t>(1, kValuesPerTask / width);
    const std::int64_t count = (rows_ + group - 1) / group;
    std::vector<Measurement> parts(static_cast<std::size_t>(count));
    Measurement total;
    if (mean_.defined()) total.mean_shift = at::empty({rows_}, at::kDouble);
    tasks.parallel(count, [&](std::int64_t task) {
      measure_rows(task * group, std::min(rows_, (task + 1) * group), parts[static_cast<std::size_t>(task)], total.mean_shift);
    });
    for (const Measurement& part : parts) {
      total.values.merge(part.values);
      total.outputs.merge(part.outputs);
    }
    if (inputs_.defined()) total.outputs.rows = inputs_.size(0);
    return total;
  }

 private:
  void measure_rows(std::int64_t begin, std::int64_t end, Measurement& part, at::Tensor& mean_shift) const {
    if (inputs_.defined()) return measure_outputs(begin, end, part, mean_shift);
    thread_local std::vector<float> expected, found;
    const std::int64_t step = rows_per_step();
    expected.resize(static_cast<std::size_t>(step * columns_));
    found.resize(static_cast<std::size_t>(step * columns_));
    for (std::int64_t row = begin; row < end; row += step)
      measure_step(row, std::min(end, row + step), expected.data(), found.data(), part.values, mean_shift);
  }

  // The same, and the outputs: of these the values of the whole group are needed together.
  void measure_outputs(std::int64_t begin, std::int64_t end, Measurement& part, at::Tensor& mean_shift) const {
    const OneThread one_thread;
    const at::Tensor values = at::empty({end - begin, columns_}, at::kFloat);
    const at::Tensor difference = at::empty_like(values);
    float* value = values.mutable_data_ptr<float>();
    float* other = difference.mutable_data_ptr<float>();
    for (std::int64_t row = begin, step = rows_per_step(); row < end; row += step) {
      const std::int64_t at = (row - begin) * columns_;
      measure_step(row, std::min(end, row + step), value + at, other + at, part.values, mean_shift);
    }
    OutputSums& sums = part.outputs;
    add_squared_outputs(inputs_, values, sums.squared_output);
    for (const RowDecoder& version : versions_) {
      if (&version != versions_.data()) version(begin, end, other);
      subtract(value, other, values.numel());
      add_squared_outputs(inputs_, difference, sums.squared_errors.emplace_back(0));
    }
  }

  void measure_step(std::int64_t begin, std::int64_t end, float* expected, float* found, ErrorSums& sums, at::Tensor& mean_shift) const {
    original_(begin, end, expected);
    versions_.front()(begin, end, found);
    add_errors(expected, found, (end - begin) * columns_, sums);
    if (!mean_.defined()) return;
    const float* mean = mean_.const_data_ptr<float>();
    for (std::int64_t row = begin; row < end; ++row, expected += columns_, found += columns_) {
      double shift = 0;
      for (std::int64_t i = 0; i < columns_; ++i) shift += (static_cast<double>(expected[i]) - found[i]) * mean[i];
      mean_shift.mutable_data_ptr<double>()[row] = shift;
    }
  }

  std::int64_t rows_per_step() const { return std::max<std::int64_t>(1, kValuesPerStep / std::max<std::int64_t>(1, columns_)); }

  const std::int64_t rows_, columns_;
  const RowDecoder original_;
  const std::span<const RowDecoder> versions_;
  const at::Tensor mean_;
  at::Tensor inputs_;
};

}  // namespace

void OutputSums::merge(const OutputSums& other) {
  squared_output += other.squared_output;
  squared_errors.resize(std::max(squared_errors.size(), other.squared_errors.size()));
  for (std::size_t i = 0; i < other.squared_errors.size(); ++i) squared_errors[i] += other.squared_errors[i];
  rows += other.rows;
}

double OutputSums::relative(std::size_t version) const {
  const double error = squared_errors.at(version);
  return error == 0 ? 0 : std::sqrt(error / squared_output);
}

Measurement measure(const at::Tensor& weight, std::span<const RowDecoder> versions, const MeasuredInputs& inputs, TaskPool& tasks) {
  return Pass(weight, versions, inputs).run(tasks);
}

void set_output_error(LayerQuality& quality, const OutputSums& sums, bool is_rounded) {
  if (sums.rows == 0) return;
  quality.output_error = sums.relative(0);
  if (is_rounded || sums.squared_errors.size() > 1) quality.rounding_output_error = sums.relative(is_rounded ? 0 : 1);
  quality.output_rows = sums.rows;
}

}  // namespace qmill
