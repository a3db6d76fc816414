// Rounds a layer for its real inputs: damping, scales, LDLQ, and a comparison with plain rounding.
#pragma once

#include <qmill/numerics/layer_inputs.h>
#include <qmill/numerics/ldlq.h>

namespace qmill {

enum class ScaleSearch {
  off,      // what the grid wishes for: the largest magnitude of a tile is its largest value, or as its ScaleGrid says
  mse,      // of a few scales near that one, the one with the smallest squared error of the tile, rounded to nearest
  hessian,  // the one with the smallest objective: of each tile while it is rounded, where can_choose_scales() says so, and else of each
            // group of rows that shares its scales; without inputs, mse
};

struct CalibratedRounding {
  std::optional<double> damping;  // nothing: chosen on the rows kept apart
  bool activation_order = false;
  std::optional<ScaleSearch> scale_search;  // nothing: hessian for grids of at most 16 values, which gain by it
  std::int64_t block_columns = kBlockColumns;
  std::int64_t descent_passes = 0;  // of descend(), over the codes of LDLQ
};

// The options "damping", "scale_search" that every quantizer of this kind has, with the same names, flags and values; and what they say.
QMILL_API std::vector<OptionSpec> calibrated_options();
QMILL_API CalibratedRounding read_calibrated_options(const Options& options);

// A weight that is never in memory as a whole.
struct WeightParts {
  std::int64_t rows = 0;       // N
  std::int64_t columns = 0;    // K
  std::int64_t part_rows = 0;  // that are asked for together, rounded up to whole tiles and to kSliceRows of ldlq.h
  // Rows [begin, end): F32 [end - begin, K], finite, in the basis of the inputs. Asked for twice; the first time, all of them in order.
  std::function<at::Tensor(std::int64_t begin, std::int64_t end)> load;
};

// Codes and scales for `weight` F32 [N,K] in the basis of `inputs`; it may be overwritten. Where the squared output error on the rows
// kept apart (of a Hessian without rows: the objective) is not below that of rounding to nearest, or where rows are too few to keep any
// apart, the result is that of rounding to nearest, and a note says so. Statistics: objective_rtn and objective (mean of e H e^T, H
// undamped, over at most 512 rows of the weight), damping, block_columns, pieces if there are several; with rows kept apart output_error_rtn and output_error, relative, on them.
// Without inputs (null) the Hessian is the identity: codes are those of rounding to nearest, with searched scales where asked for.
// [worker-thread; uses context.parallel]
QMILL_API CodedWeight round_calibrated(const at::Tensor& weight, const Grid& grid, const Layout& layout, const LayerInputs* inputs,
                                       const CalibratedRounding& how, LayerContext& context);

// The same codes and scales. With searched scales one part is a whole tile at least, so that one scale per tensor means one part.
QMILL_API CodedWeight round_calibrated(const WeightParts& weight, const Grid& grid, const Layout& layout, const LayerInputs* inputs,
                                       const CalibratedRounding& how, LayerContext& context);

// Rows of a weight [N,K] that may be rotated and rounded at once: all, or fewer where the limits of `context` say so.
QMILL_API std::int64_t rows_at_once(const at::Tensor& weight, const Layout& layout, const LayerContext& context);

// The same for a weight in its source type, brought into the basis of context.target() `part_rows` rows at a time.
// Throws Error(numeric) for values that are not finite, as for the whole weight.
QMILL_API CodedWeight round_calibrated_in_parts(const at::Tensor& weight, std::int64_t part_rows, const CalibratedRounding& how,
                                                LayerContext& context);

}  // namespace qmill
