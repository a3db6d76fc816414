#include <qmill/compat/quality_reporter.h>

#include "report/measure.h"

#include <qmill/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace qmill {
namespace {

std::string shape_text(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")) : "no tensor";
}

[[noreturn]] void refuse(const std::string& name, std::string message) {
  throw Error(ErrorKind::usage, std::move(message)).in(fmt::format("layer '{}'", name));
}

// Values that load_f32 takes, in order.
at::Tensor readable(const std::string& name, std::string_view what, const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cpu() || !is_floating(dtype_of(tensor)))
    refuse(name, fmt::format("{} is {}, expected a floating tensor on the CPU", what,
                             tensor.defined() ? std::string(dtype_name(dtype_of(tensor))) : shape_text(tensor)));
  return tensor.detach().contiguous();
}

}  // namespace

QualityReporter::QualityReporter(double threshold) : threshold_(threshold) {}

void QualityReporter::add_layer(std::string name, const at::Tensor& original, const at::Tensor& dequantized) {
  add(std::move(name), original, dequantized, nullptr);
}

void QualityReporter::add_layer(std::string name, const at::Tensor& original, const at::Tensor& dequantized, const at::Tensor& inputs) {
  add(std::move(name), original, dequantized, &inputs);
}

void QualityReporter::add(std::string name, const at::Tensor& original, const at::Tensor& dequantized, const at::Tensor* inputs) {
  const at::Tensor expected = readable(name, "the original", original);
  const at::Tensor found = readable(name, "the dequantized tensor", dequantized);
  if (expected.sizes() != found.sizes())
    refuse(name, fmt::format("the original is {}, the dequantized tensor {}", shape_text(expected), shape_text(found)));
  at::Tensor rows;
  if (inputs != nullptr) {
    rows = readable(name, "the input", *inputs).to(at::kFloat);
    if (expected.dim() != 2 || rows.dim() != 2 || rows.size(1) != expected.size(1))
      refuse(name, fmt::format("inputs {} do not fit a weight {}", shape_text(rows), shape_text(expected)));
  }
  TaskPool tasks(0);
  const RowDecoder decoded = plain_rows(found);
  const Measurement measured = measure(expected, {&decoded, 1}, {.rows = rows}, tasks);
  LayerQuality quality = layer_quality(std::move(name), FormatLabel{}, measured.values);
  set_output_error(quality, measured.outputs, false);
  layers_.push_back(std::move(quality));
}

std::string QualityReporter::get_report_string() const { return quality_report_text(layers_, threshold_); }

}  // namespace qmill
