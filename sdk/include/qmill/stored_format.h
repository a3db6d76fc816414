// A StoredFormat reads what a file holds: it recognises layers that are stored in it and decodes them.
// Formats that are also written: coded_format.h. Quantizers, filters and loaders do not need this header.
#pragma once

#include <qmill/layout.h>
#include <qmill/tensor.h>

#include <span>
#include <vector>

namespace qmill {

// What a file says of one layer: its tensors (weight first) and its marker, if any.
struct StoredLayerInfo {
  std::string base;  // name without ".weight"
  TensorInfo weight;
  std::vector<TensorInfo> others;  // tensors named base + "." + suffix, except the weight
  std::string marker;              // JSON text of the marker tensor or header entry; empty: none
};

struct FormatInfo {
  std::string name;                  // "int8"
  std::vector<std::string> aliases;  // "int8_tensorwise", ... (see WritableFormat::scalings)
  std::string summary;
  bool rows_independent = true;  // false: decode_rows must be asked for all rows at once
  bool takes_any_shape = false;  // false: matrices only
  // Another format, for weights that this one cannot or must not store. Empty: such a weight is an error.
  std::string substitute = {};
};

// What a layout is called in files.
struct FormatLabel {
  std::string name;     // "int8_tensorwise"
  std::string marker;   // JSON text of the marker; empty: the layout has none
  std::string summary;  // "int8 row, rotated 256"
};

// All functions are pure and may be called from any thread.
class QMILL_API StoredFormat {
 public:
  virtual ~StoredFormat();

  virtual const FormatInfo& info() const = 0;

  virtual FormatLabel label(const Layout& layout) const = 0;

  // The exact tensors of the file, the weight first.
  virtual std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const = 0;

  // The layout of a layer in a file, or nothing when it is not of this format.
  // Throws Error(input) when it claims to be and its tensors contradict that.
  virtual std::optional<Layout> recognise(const StoredLayerInfo& layer) const = 0;

  // What outputs() was asked about: the weight with the shape that it has decoded, its type not known. By default the
  // stored weight; a format that packs or pads says otherwise. `layout` is what recognise() said of this layer.
  virtual TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const;

  // Rows [begin, end) of the weight as a reader computes them, in the original basis: F32 [end - begin, K] at `out`.
  // `tensors` are those of outputs(), in that order.
  virtual void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                           float* out) const = 0;
};

// The formats that come with the SDK. They live as long as the process.
QMILL_API std::span<const StoredFormat* const> builtin_formats();

}  // namespace qmill
