#include "calibration/memory_rows.h"

#include "calibration/input_rows.h"
#include "calibration/known_inputs.h"
#include "model/finite.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <cstring>

namespace qmill {
namespace {

std::string axes_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t size : shape)
    text += fmt::format("{}{}", text.empty() ? "" : " x ", size < 0 ? std::string("rows") : std::to_string(size));
  return text;
}

// One tensor in memory, as a source.
class MemorySource final : public TensorSource {
 public:
  explicit MemorySource(at::Tensor values) : values_(std::move(values)), tensors_({info_of({"rows", values_})}) {}
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return {}; }
  void read_part(std::size_t, std::uint64_t begin, std::span<std::byte> out) const override {
    std::memcpy(out.data(), static_cast<const std::byte*>(values_.const_data_ptr()) + begin, out.size());
  }
  std::optional<Extent> extent(std::size_t) const override { return std::nullopt; }

 private:
  const at::Tensor values_;
  const std::vector<TensorInfo> tensors_;
  const std::map<std::string, std::string> metadata_;
};

class MemoryRows final : public LayerCalibration {
 public:
  MemoryRows(const at::Tensor& rows, std::int64_t seed, const RunResources& resources)
      : source_(rows), inputs_(source_, 0), split_(inputs_.rows(), seed), resources_(resources) {}

  const std::string& identity() const override { return identity_; }
  std::int64_t row_count() const override { return split_.fitted(); }
  at::Tensor hessian() const override { return measure_inputs(inputs_, &split_, true, resources_).hessian; }
  at::Tensor mean() const override { return measure_inputs(inputs_, &split_, false, resources_).mean; }
  at::Tensor rows() const override { return inputs_.read(split_.fitted_rows(0, inputs_.rows()), resources_); }
  at::Tensor held_out_rows() const override {
    return split_.kept_apart() == 0 ? at::Tensor() : inputs_.read(split_.kept_rows(kMostKeptRows), resources_);
  }

 private:
  const std::string identity_ = "given rows";
  const MemorySource source_;
  const InputRows inputs_;
  const RowSplit split_;
  const RunResources& resources_;
};

class MemoryHessian final : public KnownInputs {
 public:
  explicit MemoryHessian(at::Tensor hessian) : KnownInputs("given"), hessian_(std::move(hessian)) {}
  at::Tensor hessian() const override { return hessian_.clone(); }

 private:
  const at::Tensor hessian_;
};

}  // namespace

std::string tensor_text(const at::Tensor& tensor) {
  if (!tensor.defined()) return "no tensor";
  const TensorInfo info = info_of({"", tensor});
  return fmt::format("{} {}", dtype_name(info.dtype), info.shape_text());
}

at::Tensor given_weight(const at::Tensor& weight) {
  if (!weight.defined() || weight.dim() != 2 || weight.numel() == 0 || !weight.device().is_cpu() ||
      !at::isFloatingType(weight.scalar_type()))
    throw Error(ErrorKind::usage, fmt::format("the weight is {}, expected a floating matrix with values on the CPU", tensor_text(weight)));
  return weight.detach().contiguous();
}

at::Tensor given_inputs(const char* name, const at::Tensor& tensor, const std::vector<std::int64_t>& shape) {
  bool fits = tensor.defined() && tensor.device().is_cpu() && at::isFloatingType(tensor.scalar_type()) &&
              tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t i = 0; fits && i < shape.size(); ++i)
    fits = shape[i] < 0 ? tensor.size(static_cast<std::int64_t>(i)) > 0 : tensor.size(static_cast<std::int64_t>(i)) == shape[i];
  if (!fits)
    throw Error(ErrorKind::usage, fmt::format("{} is {}, expected a floating {} on the CPU", name, tensor_text(tensor), axes_text(shape)));
  at::Tensor values = tensor.detach().to(at::kFloat).contiguous();
  if (!is_finite(values)) throw Error(ErrorKind::numeric, fmt::format("{} has values that are not finite", name));
  return values;
}

std::unique_ptr<LayerCalibration> memory_rows(const at::Tensor& rows, std::int64_t seed, const RunResources& resources) {
  return std::make_unique<MemoryRows>(rows, seed, resources);
}

std::unique_ptr<LayerCalibration> memory_hessian(const at::Tensor& hessian) { return std::make_unique<MemoryHessian>(hessian); }

}  // namespace qmill
