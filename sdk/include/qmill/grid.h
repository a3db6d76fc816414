// The values that a stored weight can have: those of its codes, and those of its scales.
#pragma once

#include <qmill/export.h>

#include <ATen/core/Tensor.h>

#include <vector>

namespace qmill {

// The scales that a format can store, where it quantizes them, too. Pure. [any-thread]
class QMILL_API ScaleGrid {
 public:
  virtual ~ScaleGrid();

  // What all scales of a weight have in common, such as a scale of the whole tensor: F32, chosen from the scales that are wished for, F32 of
  // any shape. Default: undefined, there is nothing.
  virtual at::Tensor common(const at::Tensor& wished) const;

  // For each wished scale the one that is stored, as readers compute it: F32 of the same shape, positive, each by itself. Where a reader's
  // would be zero, a small one that leaves only codes of zero.
  virtual at::Tensor stored(const at::Tensor& wished, const at::Tensor& common) const = 0;
};

// What a code can express, before it is multiplied by its scale.
struct QMILL_API Grid {
  int lowest = -127;
  int highest = 127;
  std::vector<float> values = {};         // ascending, values[code - lowest]; empty: a code is its own value
  const ScaleGrid* scale_grid = nullptr;  // the format's; null: any F32 can be a scale

  float value(int code) const { return values.empty() ? static_cast<float>(code) : values[code - lowest]; }
  float largest() const { return value(highest); }
  // Nearest code; ties to the even code. NaN gives `lowest`.
  int nearest(float value) const;
};

// Scales of one weight, as they are stored.
struct TileScales {
  at::Tensor values;  // F32 [ceil(N / tile_rows), ceil(K / tile_columns)]
  at::Tensor common;  // of the ScaleGrid; undefined: nothing
};

// What is stored for the scales that are wished for.
QMILL_API TileScales stored_scales(const at::Tensor& wished, const Grid& grid);

}  // namespace qmill
