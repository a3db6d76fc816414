// A Format says how a weight is stored: a grid (which values a code expresses), a basis (as it is, or rotated) and a
// layout (which tensors, named how). It is independent of how the codes were chosen; see quantizer.h for that.
// Authors of quantizers call grid() and read Layout; only a layout of your own needs a Format of your own.
#pragma once

#include <qmill/tensor.h>

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qmill {

enum class Scaling { row, tensor, block, axis };
enum class Naming {
  comfy,   // .weight_scale and a .comfy_quant marker
  legacy,  // .scale_weight, no marker
};

QMILL_API std::string_view scaling_name(Scaling scaling);
QMILL_API std::optional<Scaling> parse_scaling(std::string_view name);

struct Rotation {
  enum class Mode {
    automatic,  // groups of 256 where 256 divides K and the layout can say so, else none
    any,        // the largest of 256, 64, 16 that divides K
    off,
    fixed,  // groups of `group`, a power of 4, where it divides K
  };
  Mode mode = Mode::automatic;
  std::int64_t group = 256;
};

QMILL_API std::string rotation_text(const Rotation& rotation);
// "auto", "any", "off" or a power of 4 up to 65536. Throws Error(usage).
QMILL_API Rotation parse_rotation(std::string_view text);

// What the person asked for. One weight may get less: Layout::note says so.
struct StorageOptions {
  Scaling scaling = Scaling::row;
  std::int64_t block_size = 128;  // edge of the square tile of block scaling
  Rotation rotation;
  Naming naming = Naming::comfy;
  bool full_precision_matrix_mult = false;  // a key of the marker
  bool legacy_input_scale = false;          // legacy names: adds .scale_input
  bool vector_scale = false;                // legacy names: a single scale is [1] instead of a scalar
};

// How one weight [N,K] is stored. Scales form a matrix [ceil(N / tile_rows), ceil(K / tile_columns)].
struct Layout {
  Scaling scaling = Scaling::row;
  std::int64_t tile_rows = 1;
  std::int64_t tile_columns = 1;
  std::int64_t rotation_group = 0;  // 0: stored as it is; else multiplied by the regular Hadamard matrix per group of columns
  Naming naming = Naming::comfy;
  bool full_precision_matrix_mult = false;
  bool legacy_input_scale = false;
  bool vector_scale = false;
  float input_scale = 1;  // value of .scale_input
  std::string note;  // why this is less than what was asked for; empty: it is not
  // Of the decoded weight, in layouts that pad it; 0: as it is stored.
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

// The values that a code can express, before it is multiplied by its scale.
struct QMILL_API Grid {
  int lowest = -127;
  int highest = 127;
  std::vector<float> values;  // ascending, values[code - lowest]; empty: a code is its own value

  float value(int code) const { return values.empty() ? static_cast<float>(code) : values[code - lowest]; }
  float largest() const { return value(highest); }
  // Nearest code; ties to the even integer, or to the lower code of a table. NaN gives `lowest`.
  int nearest(float value) const;
};

// Codes and scales of one weight in its stored basis.
struct CodedWeight {
  at::Tensor codes;                               // I8 [N,K]
  at::Tensor scales;                              // F32 [ceil(N / tile_rows), ceil(K / tile_columns)]
  std::map<std::string, double> statistics = {};  // of how they were chosen, for reports: "objective_rtn", "objective"
};

// What a file says of one layer: its tensors (weight first) and its marker, if any.
struct StoredLayerInfo {
  std::string base;  // name without ".weight"
  TensorInfo weight;
  std::vector<TensorInfo> others;  // tensors named base + "." + suffix, except the weight
  std::string marker;              // JSON text of the marker tensor or header entry; empty: none
};

struct FormatInfo {
  std::string name;                  // "int8"
  std::vector<std::string> aliases;  // "int8_tensorwise", ... (an alias may imply a scaling: implied_scaling)
  std::string summary;
  bool rows_independent = true;  // false: decode_rows must be asked for all rows at once
  bool takes_any_shape = false;  // false: matrices only
  bool is_read_only = false;     // true: of other writers; layout() throws, encode() is never called
};

// What a layout is called in files and what reads it.
struct FormatLabel {
  std::string name;     // "int8_tensorwise"
  std::string marker;   // JSON text of the marker; empty: the layout has none
  std::string summary;  // "int8 row, rotated 256"
  bool loads_in_comfyui = true;
  std::string since;  // first ComfyUI release that reads it; empty: any
};

// Another format for a weight that this one cannot or must not store.
struct Substitute {
  std::string format;
  std::string reason;  // becomes a note: "64 does not divide its 300 columns: int8"
};

// All functions are pure and may be called from any thread.
class QMILL_API Format {
 public:
  virtual ~Format();

  virtual const FormatInfo& info() const = 0;

  // "int8_blockwise" -> block; nothing when the name does not imply one.
  virtual std::optional<Scaling> implied_scaling(std::string_view name) const;

  // Throws Error(usage) for wishes that contradict each other, Error(unsupported) for a shape that cannot be stored.
  virtual Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const = 0;

  // Where this weight goes instead, with the same wishes; nothing: layout() takes it. Throws like layout() for wishes.
  // Without it a weight that cannot be stored is an error of the run.
  virtual std::optional<Substitute> substitute(const TensorInfo& weight, const StorageOptions& wanted) const;

  virtual FormatLabel label(const Layout& layout) const = 0;

  // The exact tensors of the file, the weight first.
  virtual std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const = 0;

  // Null when there are no codes to choose (a cast), or encode() cannot do with codes and scales: then only a quantizer that names
  // this format can write it.
  virtual const Grid* grid() const = 0;

  // Codes to stored tensors, in the order of outputs(). The result may share memory with `coded`.
  virtual std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const = 0;

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

// The formats that come with the SDK: int8, fp16 and int4, then those that are read only. They live as long as the process.
QMILL_API std::span<const Format* const> builtin_formats();

}  // namespace qmill
