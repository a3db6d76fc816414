#include <qmill/quantizer.h>

#include <qmill/numerics/rounding.h>

namespace qmill {

Quantizer::~Quantizer() = default;

std::vector<TensorInfo> Quantizer::plan(const TensorInfo& weight, const LayerTarget& target) const {
  return target.format->outputs(weight, target.layout);
}

StoredLayer GridQuantizer::quantize(const at::Tensor& weight, LayerContext& context) const {
  const LayerTarget& target = context.target();
  return {target.format->encode(code_weight(weight, context), context.weight(), target.layout), {}};
}

CodedWeight GridQuantizer::code_weight(const at::Tensor& weight, LayerContext& context) const {
  const LayerTarget& target = context.target();
  return choose_codes(to_stored_basis(weight, target.layout, context), *target.format->grid(), target.layout, context);
}

}  // namespace qmill
