#include <qmill/numerics/layer_inputs.h>

#include <qmill/error.h>
#include <qmill/numerics/hadamard.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/products.h>
#include <qmill/numerics/row_kernels.h>

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qmill {
namespace {

constexpr std::int64_t kRowsPerTask = 64;

void require_shape(const at::Tensor& tensor, std::int64_t columns, const char* what) {
  if (tensor.dim() == 2 && tensor.size(1) == columns) return;
  throw Error(ErrorKind::input, fmt::format("the {} of this layer's inputs has the shape [{}], expected {} columns", what,
                                            fmt::join(tensor.sizes(), ","), columns));
}

// A sum over groups of rows, each by one task, in an order that does not depend on the threads.
template <class Group>
double sum_over_rows(std::int64_t rows, LayerContext& context, Group group) {
  std::vector<double> sums(static_cast<std::size_t>((rows + kRowsPerTask - 1) / kRowsPerTask));
  context.parallel(static_cast<std::int64_t>(sums.size()), [&](std::int64_t task) {
    const OneThread one_thread;
    const std::int64_t begin = task * kRowsPerTask;
    sums[static_cast<std::size_t>(task)] = group(begin, std::min(rows, begin + kRowsPerTask) - begin);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

void require_finite(const at::Tensor& tensor, const char* what, LayerContext& context) {
  const auto* values = tensor.const_data_ptr<float>();
  const std::int64_t columns = tensor.size(1);
  const double bad = sum_over_rows(tensor.size(0), context, [&](std::int64_t begin, std::int64_t count) {
    return std::isfinite(largest_magnitude(values + begin * columns, count * columns)) ? 0.0 : 1.0;
  });
  if (bad != 0)
    throw Error(ErrorKind::numeric, fmt::format("the {} of this layer's inputs has values that are not finite", what),
                "repair the calibration data");
}

double dot_of(const at::Tensor& a, const at::Tensor& b) { return dot(a.const_data_ptr<float>(), b.const_data_ptr<float>(), a.numel()); }

// A copy of [rows, columns] in the corner of a larger matrix of zeros.
at::Tensor padded(const at::Tensor& matrix, std::int64_t rows, std::int64_t columns) {
  at::Tensor result = at::zeros({rows, columns}, at::kFloat);
  result.narrow(0, 0, matrix.size(0)).narrow(1, 0, matrix.size(1)).copy_(matrix);
  return result;
}

}  // namespace

bool LayerInputs::all_zero() const {
  const at::Tensor diagonal = hessian.diagonal();
  for (std::int64_t i = 0; i < diagonal.size(0); ++i)
    if (hessian.const_data_ptr<float>()[i * (hessian.size(0) + 1)] != 0) return false;
  return true;
}

std::shared_ptr<const LayerInputs> inputs_in_basis(const std::string& basis, const std::function<void(float*)>& transform,
                                                   LayerContext& context, std::int64_t padded_columns) {
  const LayerCalibration* calibration = context.calibration();
  if (calibration == nullptr) return nullptr;
  const std::int64_t columns = context.weight().shape.at(1);
  const std::string key = fmt::format("{}/{}", calibration->identity(), basis);
  const auto known = std::static_pointer_cast<const LayerInputs>(context.shared("inputs/" + key, [&] {
    auto inputs = std::make_shared<LayerInputs>();
    inputs->key = key;
    inputs->rows = calibration->row_count();
    inputs->hessian = calibration->hessian();
    if (!inputs->hessian.defined()) return inputs;
    require_shape(inputs->hessian, columns, "Hessian");
    require_shape(inputs->hessian.t(), columns, "Hessian");
    inputs->held_out = calibration->held_out_rows();
    if (inputs->held_out.defined()) require_shape(inputs->held_out, columns, "rows kept apart");
    require_finite(inputs->hessian, "Hessian", context);
    if (inputs->held_out.defined()) require_finite(inputs->held_out, "rows kept apart", context);
    if (transform) {
      const std::int64_t size = std::max(columns, padded_columns);
      inputs->hessian = padded(inputs->hessian, size, size);  // a copy: what calibration gave may be its own
      transform_symmetric(inputs->hessian, transform, context);
      if (inputs->held_out.defined()) {
        inputs->held_out = padded(inputs->held_out, inputs->held_out.size(0), size);
        transform_rows(inputs->held_out, transform, context);
      }
    }
    return inputs;
  }));
  return known->hessian.defined() ? known : nullptr;
}

std::shared_ptr<const LayerInputs> inputs_in_stored_basis(const Layout& layout, LayerContext& context) {
  const std::int64_t group = layout.rotation_group;
  if (group == 0) return inputs_in_basis("plain", nullptr, context);
  const std::int64_t columns = context.weight().shape.at(1);
  // The rotation R is symmetric: (W R)(R x) = W x.
  return inputs_in_basis(
      fmt::format("rotated {}", group), [=](float* row) { rotate_groups(row, columns, group); }, context);
}

double squared_output_error(const at::Tensor& rows, const at::Tensor& errors, LayerContext& context) {
  return sum_over_rows(errors.size(0), context, [&](std::int64_t begin, std::int64_t count) {
    const at::Tensor outputs = at::mm(errors.narrow(0, begin, count), rows.t());
    return dot_of(outputs, outputs);
  });
}

double squared_error_under(const at::Tensor& hessian, const at::Tensor& errors, LayerContext& context) {
  return sum_over_rows(errors.size(0), context, [&](std::int64_t begin, std::int64_t count) {
    const at::Tensor part = errors.narrow(0, begin, count);
    return dot_of(at::mm(part, hessian), part);
  });
}

}  // namespace qmill
