// Formats that are written. A WritableFormat lays out a weight. A CodedFormat also has a grid, so that every quantizer can write it:
// the codes are chosen apart from how they are stored. Authors of quantizers read Grid and Layout, and need no format of their own.
#pragma once

#include <qmill/grid.h>
#include <qmill/stored_format.h>

#include <map>
#include <string_view>

namespace qmill {

// A format without codes to choose, such as a cast, derives from this one. Only quantizers that name it write it.
class QMILL_API WritableFormat : public StoredFormat {
 public:
  ~WritableFormat() override;

  // The scalings that may be asked for where the format is called `name` (its name or an alias), its own choice first. Empty: there is
  // nothing to choose.
  virtual std::vector<Scaling> scalings(std::string_view name) const;

  // Whether weights with this scaling can be rotated. Default: no.
  virtual bool can_rotate(Scaling scaling) const;

  // Throws Error(usage) for wishes that contradict each other, Error(unsupported) for a shape that cannot be stored.
  virtual Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const = 0;

  // Why this weight goes to info().substitute instead, with the same wishes: "64 does not divide its 300 columns". Empty: layout() takes
  // it. Throws like layout() for wishes. Default: empty.
  virtual std::string misfit(const TensorInfo& weight, const StorageOptions& wanted) const;
};

// Codes and scales of one weight in its stored basis.
struct CodedWeight {
  at::Tensor codes;                               // I8 [N,K]
  at::Tensor scales;                              // F32 [ceil(N / tile_rows), ceil(K / tile_columns)], such as the grid can store
  std::map<std::string, double> statistics = {};  // of how they were chosen, for reports: "objective_rtn", "objective"
  at::Tensor common_scale = {};                   // of the grid's ScaleGrid; undefined: nothing
};

class QMILL_API CodedFormat : public WritableFormat {
 public:
  ~CodedFormat() override;

  virtual const Grid& grid() const = 0;

  // Codes to stored tensors, in the order of outputs(). The result may share memory with `coded`.
  virtual std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const = 0;
};

// The role of a format, or null. [any-thread]
QMILL_API const WritableFormat* as_writable(const StoredFormat& format);
QMILL_API const CodedFormat* as_coded(const StoredFormat& format);

}  // namespace qmill
