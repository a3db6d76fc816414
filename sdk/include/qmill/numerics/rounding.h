// Round to nearest: the arithmetic of plain quantization, in one fused pass, for every layout of a grid.
#pragma once

#include <qmill/layer_context.h>

namespace qmill {

// The smallest scale: a row of zeros gets it, with codes 0.
inline constexpr float kSmallestScale = 1e-30f;

// scale = max(largest |x| of the tile / grid.largest(), kSmallestScale), in F32.
QMILL_API float scale_for(float largest_magnitude, const Grid& grid);

// Codes and scales of a weight [N,K] in its source type: upcast to F32, rotated in F32 where the layout says so,
// divided by the scale as it is stored, rounded to the nearest code. Throws Error(numeric) for NaN or infinity, with count and place.
// [worker-thread; uses context.parallel]
QMILL_API CodedWeight round_to_nearest(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context);

// The weight as F32 [N,K] in the stored basis. Throws like round_to_nearest.
QMILL_API at::Tensor to_stored_basis(const at::Tensor& weight, const Layout& layout, LayerContext& context);

// What each of the layout's tiles asks for, for a finite F32 weight [N,K] in the stored basis.
QMILL_API WishedScales wished_scales(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context);

// The same as they are stored.
QMILL_API TileScales tile_scales(const at::Tensor& weight, const Grid& grid, const Layout& layout, LayerContext& context);

// Nearest codes for a finite F32 weight [N,K] in the stored basis and scales that are given, one per tile, as they are stored.
QMILL_API CodedWeight round_onto(const at::Tensor& weight, const TileScales& scales, const Grid& grid, const Layout& layout,
                                 LayerContext& context);

// W - decoded, F32 [N,K], for a finite F32 weight in the stored basis and its codes; one task.
QMILL_API at::Tensor coding_errors(const at::Tensor& weight, const CodedWeight& coded, const Grid& grid, const Layout& layout,
                                   LayerContext& context);

}  // namespace qmill
