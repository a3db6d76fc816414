// QuIP (arXiv 2307.13304): LDLQ in an incoherent basis. An orthogonal change of basis leaves the objective and the damped Hessian what they
// are, so it pays only where the codes are stored in that basis; elsewhere this rounds in the basis that is stored.
#pragma once

#include <qmill/numerics/calibrated_rounding.h>
#include <qmill/quantizer.h>

namespace quip {

class QuipQuantizer final : public qmill::GridQuantizer {
 public:
  const qmill::QuantizerInfo& info() const override;
  void adapt(qmill::StorageWish& wish, const qmill::Options& options) const override;
  qmill::StoredLayer quantize(const at::Tensor& weight, qmill::LayerContext& context) const override;

 protected:
  qmill::CodedWeight choose_codes(at::Tensor weight, const qmill::Grid& grid, const qmill::Layout& layout,
                                  qmill::LayerContext& context) const override;
  qmill::CodedWeight code_weight(const at::Tensor& weight, qmill::LayerContext& context) const override;
};

}  // namespace quip
