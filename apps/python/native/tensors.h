// Tensors that go back to Python.
#pragma once

#include "call.h"

namespace qmill::python {

// DLPack has no name for some element types: these cross as bytes, and the answer says what they are.
class Outputs {
 public:
  void add(std::string name, const at::Tensor& tensor);

  // `json` with "outputs": [{"name", "dtype", "shape"}, ...], and the tensors in that order.
  Answer answer(Json json);

 private:
  Json outputs_ = Json::array();
  std::vector<at::Tensor> tensors_;
};

}  // namespace qmill::python
