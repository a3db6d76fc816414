// A weight in a basis of its own: W' = H_M diag(sign_row) W diag(sign_col) H_N, W padded with zeros to powers of two M and N, H Sylvester's
// matrix divided by the root of its order. Signs and sizes are stored beside it. (QuIP#, arXiv 2402.04396.)
#pragma once

#include <qmill/coded_format.h>

namespace quip {

inline constexpr const char* kHadamardQuip = "hadamard_quip";

// Codes and scales of W', and the signs.
struct TransformedWeight {
  at::Tensor codes;     // I8 [M,N]
  at::Tensor scales;    // F32 [M,1]
  at::Tensor sign_row;  // F32 [M]
  at::Tensor sign_col;  // F32 [N]
};

// Without its signs a code says nothing, so this is no CodedFormat: only the quantizer beside it writes it.
class HadamardQuipFormat final : public qmill::WritableFormat {
 public:
  const qmill::FormatInfo& info() const override;
  qmill::Layout layout(const qmill::TensorInfo& weight, const qmill::StorageOptions& wanted) const override;
  qmill::FormatLabel label(const qmill::Layout& layout) const override;
  std::vector<qmill::TensorInfo> outputs(const qmill::TensorInfo& weight, const qmill::Layout& layout) const override;
  std::optional<qmill::Layout> recognise(const qmill::StoredLayerInfo& layer) const override;
  qmill::TensorInfo original(const qmill::StoredLayerInfo& layer, const qmill::Layout& layout) const override;
  void decode_rows(std::span<const at::Tensor> tensors, const qmill::Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override;

  // The tensors of outputs(), in that order; they may share memory with `transformed`.
  std::vector<qmill::StoredTensor> store(const TransformedWeight& transformed, const qmill::TensorInfo& weight,
                                         const qmill::Layout& layout) const;
};

}  // namespace quip
