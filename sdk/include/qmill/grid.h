// The values that a stored weight can have: those of its codes, and those of its scales.
#pragma once

#include <qmill/export.h>

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qmill {

struct Grid;

// The scales that a format can store, where it quantizes them, too. Pure. [any-thread]
class QMILL_API ScaleGrid {
 public:
  virtual ~ScaleGrid();

  // What is wished for of one row of a weight, F32 [n], in the stored basis: a scale for each tile of `tile_columns`. Returns the row's
  // peak, the largest magnitude that must have a code. Default: scale_for() of each tile's largest magnitude; the row's largest magnitude.
  virtual float wish(const float* row, std::int64_t n, std::int64_t tile_columns, const Grid& grid, float* wished) const;

  // What scales of a weight have in common, from the peaks of its bands of rows, F32 [bands]: F32 [], such as a scale of the whole tensor, or
  // F32 [bands], a scale of each row. Default: undefined, there is nothing.
  virtual at::Tensor common(const at::Tensor& peaks) const;

  // For each wished scale, F32 [bands, tiles], the one that is stored, as readers compute it: positive, each by itself. Where a reader's
  // would be zero, a small one that leaves only values of zero.
  virtual at::Tensor stored(const at::Tensor& wished, const at::Tensor& common) const = 0;

  // True: a code is not worth its grid value times the scale, but what round_values() says, since readers round that product. Default: no.
  virtual bool rounds_values() const;

  // F32, one per code of `grid`, the lowest first, never descending: what the codes of a tile are worth. Of values equally near, readers'
  // writers take the lower code. `common`: that of the tile's row. Default: grid value times scale.
  virtual void round_values(const Grid& grid, float scale, float common, float* values) const;
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

// What the tiles of a weight [N,K] ask for. Bands are rows that share their scales.
struct WishedScales {
  at::Tensor values;      // F32 [ceil(N / tile_rows), ceil(K / tile_columns)]
  at::Tensor peaks = {};  // F32 [bands]; undefined: the grid has no ScaleGrid
};

// Scales of one weight, as they are stored.
struct TileScales {
  at::Tensor values;       // F32 [ceil(N / tile_rows), ceil(K / tile_columns)]
  at::Tensor common = {};  // of the ScaleGrid; undefined: nothing
};

// What is stored for the scales that are wished for.
QMILL_API TileScales stored_scales(const WishedScales& wished, const Grid& grid);

// Those of the bands [begin, begin + count).
QMILL_API TileScales narrow_bands(const TileScales& scales, std::int64_t begin, std::int64_t count);

}  // namespace qmill
