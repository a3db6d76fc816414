// What is known of a layer's inputs, in the basis in which its weight is rounded.
#pragma once

#include <qmill/layer_context.h>

#include <string>

namespace qmill {

inline constexpr std::int64_t kFewestJudges = 4;  // rows kept apart: of 20 in all

struct LayerInputs {
  std::string key;        // the same for the same inputs in the same basis: for LayerContext::shared
  at::Tensor hessian;     // F32 [K,K] = X^T X / T
  at::Tensor held_out;    // F32 [V,K], rows that the Hessian does not know; undefined: none
  std::int64_t rows = 0;  // T; 0: not known

  QMILL_API bool all_zero() const;  // nothing ever came in: the Hessian says nothing
  // Fewer rows kept apart than can judge. Under the Hessian of a few rows every other direction costs nothing: fitted to it, a layer
  // becomes worse, and one or two rows do not always tell.
  bool too_few() const { return rows != 0 && (!held_out.defined() || held_out.size(0) < kFewestJudges); }
};

// In the basis of the layout. Null when the run knows nothing of this layer's inputs. Layers with the same inputs share the result.
// Throws Error(numeric) for values that are not finite, Error(input) for a Hessian of another size. [worker-thread]
QMILL_API std::shared_ptr<const LayerInputs> inputs_in_stored_basis(const Layout& layout, LayerContext& context);

// The same for any linear transform T of the inputs: H -> T H T^T, rows -> T x. `basis` names it, for the key. With `padded_columns`
// above K, inputs get zeros at their end first, and T takes that many values: H becomes [padded_columns, padded_columns].
QMILL_API std::shared_ptr<const LayerInputs> inputs_in_basis(const std::string& basis, const std::function<void(float*)>& transform,
                                                             LayerContext& context, std::int64_t padded_columns = 0);

// || rows errors^T ||^2 for rows F32 [V,K], errors F32 [N,K]: the squared output error. [worker-thread; uses context.parallel]
QMILL_API double squared_output_error(const at::Tensor& rows, const at::Tensor& errors, LayerContext& context);

// sum over rows of e H e^T for H F32 [K,K], errors F32 [N,K]. [worker-thread; uses context.parallel]
QMILL_API double squared_error_under(const at::Tensor& hessian, const at::Tensor& errors, LayerContext& context);

}  // namespace qmill
