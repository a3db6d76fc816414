// LDLQ: rounding with error feedback under a Hessian, for every grid and every layout of scales.
//
// With H = (I + U) D (I + U)^T, U strictly upper and D diagonal, column k of a weight is rounded from
//   v_k = w_k + sum_{j<k} (w_j - q_j) U_jk,
// and the error of a row is exactly (w - q) H (w - q)^T = sum_k D_k (v_k - q_k)^2. GPTQ (arXiv 2210.17323) gets the same
// coefficients from the inverse of H; in this form, of QuIP (arXiv 2307.13304), one factorization is all it takes.
#pragma once

#include <qmill/layer_context.h>

#include <vector>

namespace qmill {

struct FactorOptions {
  double damping = 0.01;          // times the mean of the diagonal, added to the diagonal
  bool activation_order = false;  // columns with large diagonals first
  std::int64_t group_columns = 1;  // runs of so many columns stay together: those with a large mean of the diagonal first
};

// A damped Hessian, factored, its columns in the order in which they are rounded. Immutable: layers may share it.
struct HessianFactor {
  at::Tensor coefficients;          // F32 [K,K], strictly lower: row k, column j < k is U_jk; the rest is zero
  std::vector<double> pivots;       // D [K], positive
  std::vector<std::int64_t> order;  // step k rounds column order[k] of the weight
  double damping = 0;               // as it was added
  std::int64_t dead_columns = 0;    // inputs that were always zero: their columns are rounded to nearest
};

// `hessian` [K,K]: F32 or F64, symmetric, contiguous, on the CPU. Throws Error(input) when it is not [columns, columns], Error(numeric)
// for values that are not finite, for an H that is all zero, and for one that is not positive definite even when damped.
// [worker-thread; uses context.parallel]
QMILL_API HessianFactor factor_hessian(const at::Tensor& hessian, std::int64_t columns, const FactorOptions& options,
                                       LayerContext& context);

inline constexpr std::int64_t kBlockColumns = 64;

// Rows that one task rounds, from the first column to the last. Parts of a weight that begin at multiples of it get the very codes that
// they get in the whole.
inline constexpr std::int64_t kSliceRows = 128;

struct FeedbackRounding {
  CodedWeight coded;
  std::vector<double> objectives;  // of each row: (w - q) (H + damping) (w - q)^T; a dead column counts as one of the mean diagonal
};

// Rounds `weight`: F32 [N,K], finite, in the stored basis; `scales`: those of the layout's tiles, as they are stored. Rows do not depend on
// each other. The result is the same for every number of threads. `block_columns` go through the innermost loop together, between
// matrix products: it changes the speed, and codes only where a tie falls within rounding error; K or more: no products at all.
// [worker-thread; uses context.parallel]
QMILL_API FeedbackRounding round_with_feedback(const at::Tensor& weight, const TileScales& scales, const Grid& grid, const Layout& layout,
                                               const HessianFactor& factor, LayerContext& context,
                                               std::int64_t block_columns = kBlockColumns);

// Whether scales can be chosen while tiles are rounded: tiles of one row, of few columns.
QMILL_API bool can_choose_scales(const Layout& layout, std::int64_t columns);

// The same, and each tile gets that of several scales which leaves its own columns the smallest objective, once those before it are
// rounded: the objective of a row is a sum over its columns. `candidates`: F32 [N, tiles] each, as they are stored, with `common`; of
// equals, the first. `factor` keeps the columns of a tile together. For layouts that can_choose_scales() takes.
// [worker-thread; uses context.parallel]
QMILL_API FeedbackRounding round_and_choose_scales(const at::Tensor& weight, const std::vector<at::Tensor>& candidates,
                                                   const at::Tensor& common, const Grid& grid, const Layout& layout,
                                                   const HessianFactor& factor, LayerContext& context);

}  // namespace qmill
