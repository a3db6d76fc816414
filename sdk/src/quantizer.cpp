#include <qmill/quantizer.h>

#include <qmill/numerics/rounding.h>

namespace qmill {

Quantizer::~Quantizer() = default;

void Quantizer::adapt(StorageWish&, const Options&) const {}

std::vector<TensorInfo> Quantizer::plan(const TensorInfo& weight, const LayerTarget& target) const {
  return target.format->outputs(weight, target.layout);
}

StoredLayer GridQuantizer::quantize(const at::Tensor& weight, LayerContext& context) const {
  const LayerTarget& target = context.target();
  const CodedWeight coded = code_weight(weight, context);
  return {target.coded().encode(coded, context.weight(), target.layout), coded.statistics};
}

CodedWeight GridQuantizer::code_weight(const at::Tensor& weight, LayerContext& context) const {
  const LayerTarget& target = context.target();
  return choose_codes(to_stored_basis(weight, target.layout, context), target.coded().grid(), target.layout, context);
}

}  // namespace qmill
