#include "tensors.h"

#include <qmill/tensor.h>

namespace qmill::python {
namespace {

bool crosses_as_it_is(at::ScalarType type) {
  switch (type) {
    case at::kFloat8_e4m3fn:
    case at::kFloat8_e5m2:
    case at::kFloat8_e8m0fnu:
    case at::kUInt16:
    case at::kUInt32:
    case at::kUInt64:
    case at::kComplexHalf:
      return false;
    default:
      return true;
  }
}

// The same bytes; one more dimension where a value has several.
at::Tensor as_bytes(const at::Tensor& tensor) {
  at::Tensor contiguous = tensor.contiguous();
  if (contiguous.dim() == 0) contiguous = contiguous.reshape({1});
  return contiguous.view(at::kByte);
}

}  // namespace

void Outputs::add(std::string name, const at::Tensor& tensor) {
  outputs_.push_back({{"name", std::move(name)}, {"dtype", dtype_name(dtype_of(tensor))}, {"shape", tensor.sizes().vec()}});
  tensors_.push_back(crosses_as_it_is(tensor.scalar_type()) ? tensor.contiguous() : as_bytes(tensor));
}

Answer Outputs::answer(Json json) {
  json["outputs"] = std::move(outputs_);
  return {json.dump(-1, ' ', false, Json::error_handler_t::replace), std::move(tensors_)};
}

}  // namespace qmill::python
