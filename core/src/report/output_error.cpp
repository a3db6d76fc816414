#include "output_error.h"

#include "../run/resource_context.h"

#include <qmill/error.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>
#include <qmill/numerics/rounding.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>

namespace qmill {
namespace {

constexpr std::int64_t kValuesPerGroup = 1 << 18;  // of W: enough for efficient products, and two of them fit the cache
constexpr std::int64_t kInputsPerProduct = 1024;

double sum_of_squares(const at::Tensor& values) {
  return dot(values.const_data_ptr<float>(), values.const_data_ptr<float>(), values.numel());
}

void add_products(const at::Tensor& inputs, const at::Tensor& weights, double& sum) {
  const at::Tensor columns = weights.t();
  for (std::int64_t row = 0; row < inputs.size(0); row += kInputsPerProduct)
    sum += sum_of_squares(at::mm(inputs.narrow(0, row, std::min(kInputsPerProduct, inputs.size(0) - row)), columns));
}

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

OutputSums measure_output(const at::Tensor& inputs, const at::Tensor& weight, std::span<const RowDecoder> versions, TaskPool& tasks) {
  if (weight.dim() != 2 || inputs.dim() != 2 || inputs.size(1) != weight.size(1) || inputs.scalar_type() != at::kFloat)
    throw Error(ErrorKind::internal, "inputs do not fit the weight that their outputs are asked for");
  const at::Tensor rows = inputs.contiguous();
  const std::int64_t columns = weight.size(1);
  const std::int64_t group = std::clamp<std::int64_t>(kValuesPerGroup / std::max<std::int64_t>(1, columns), 16, 1024);
  const std::int64_t count = (weight.size(0) + group - 1) / group;
  const RowDecoder original = plain_rows(weight);
  std::vector<OutputSums> parts(static_cast<std::size_t>(count));
  tasks.parallel(count, [&](std::int64_t task) {
    const OneThread one_thread;
    OutputSums& sums = parts[static_cast<std::size_t>(task)];
    const std::int64_t begin = task * group;
    const std::int64_t end = std::min(weight.size(0), begin + group);
    const at::Tensor values = at::empty({end - begin, columns}, at::kFloat);
    const at::Tensor difference = at::empty_like(values);
    const float* value = values.const_data_ptr<float>();
    float* other = difference.mutable_data_ptr<float>();
    original(begin, end, values.mutable_data_ptr<float>());
    add_products(rows, values, sums.squared_output);
    for (const RowDecoder& version : versions) {
      version(begin, end, other);
      for (std::int64_t i = 0; i < values.numel(); ++i) other[i] = value[i] - other[i];
      add_products(rows, difference, sums.squared_errors.emplace_back(0));
    }
  });
  OutputSums total;
  total.squared_errors.resize(versions.size());
  for (const OutputSums& part : parts) total.merge(part);
  total.rows = rows.size(0);
  return total;
}

bool is_plain_rounding(const Quantizer& quantizer) { return quantizer.info().name == "rtn"; }

LayerOutput::LayerOutput(const TensorInfo& info, const at::Tensor& weight, RowDecoder stored, const Format& format, const Layout& layout,
                         bool is_rounded, const RunResources& resources)
    : weight_(weight), resources_(resources), is_rounded_(is_rounded) {
  versions_.push_back(std::move(stored));
  if (is_rounded || format.grid() == nullptr) return;
  const LayerTarget target{&format, layout, Options()};
  ResourceContext context(info, target, resources);
  std::vector<at::Tensor> rounded;
  for (StoredTensor& tensor : format.encode(round_to_nearest(weight, *format.grid(), layout, context), info, layout))
    rounded.push_back(std::move(tensor.data));
  versions_.push_back(stored_rows(std::move(rounded), info, format, layout));
}

void LayerOutput::add(const at::Tensor& inputs) { sums_.merge(measure_output(inputs, weight_, versions_, resources_.tasks)); }

void LayerOutput::report(LayerQuality& quality) const {
  if (sums_.rows == 0) return;
  quality.output_error = sums_.relative(0);
  if (is_rounded_ || versions_.size() > 1) quality.rounding_output_error = sums_.relative(is_rounded_ ? 0 : 1);
  quality.output_rows = sums_.rows;
}

}  // namespace qmill
