// A Quantizer turns one weight matrix into the stored tensors of one format.
// New algorithm? Derive from GridQuantizer below: one function. Filters and loaders do not need this header.
#pragma once

#include <qmill/layer_context.h>

#include <map>

namespace qmill {

struct QuantizerInfo {
  std::string name;  // an id is a promise about bytes: other bytes, another name
  std::vector<std::string> aliases;
  std::string summary;
  std::vector<OptionSpec> options;
  std::vector<std::string> formats;  // names of the formats that it writes; empty: every CodedFormat
  bool uses_calibration = false;
  bool rounds_to_nearest = false;  // plain rounding, by which others are measured
  std::vector<std::string> own_formats = {};  // written besides; adapt() may choose one of them
  // Time of a layer, in multiples of plain rounding, about. Where there are calibration data, `auto` takes the cheapest quantizer that uses
  // them; 0: not known, so `auto` never takes it.
  double cost = 0;
};

// How a layer would be stored. Of `storage`, what a person has not chosen is absent or automatic.
struct StorageWish {
  StorageOptions storage;
  std::string format;  // its name
  bool format_is_chosen = false;
};

struct StoredLayer {
  std::vector<StoredTensor> tensors;         // exactly what plan() said, in that order
  std::map<std::string, double> statistics;  // for reports: "objective_rtn", "objective"
};

class QMILL_API Quantizer {
 public:
  virtual ~Quantizer();

  // Constant for the life of the object. [any-thread]
  virtual const QuantizerInfo& info() const = 0;

  // For a quantizer with options that affect the stored layout: sets what was not chosen to what they say, `format` to one of
  // `own_formats` only. Throws Error(usage) where they contradict what was chosen, and names both. Default: nothing. [any-thread]
  virtual void adapt(StorageWish& wish, const Options& options) const;

  // The exact tensors that quantize() will return, from shape and options alone; reads no data. [any-thread]
  // Throws Error(unsupported) naming what cannot be stored. Default: target.format->outputs().
  virtual std::vector<TensorInfo> plan(const TensorInfo& weight, const LayerTarget& target) const;

  // `weight` [N,K] in its source type, contiguous, on the CPU, borrowed until return; the caller owns the result.
  // Throws Error(numeric) for values that cannot be stored. On error nothing is kept.
  // [worker-thread: called concurrently on one object for different layers]
  virtual StoredLayer quantize(const at::Tensor& weight, LayerContext& context) const = 0;
};

// The base for nearly every quantizer: chooses codes on a grid, in the basis in which they are stored.
class QMILL_API GridQuantizer : public Quantizer {
 public:
  StoredLayer quantize(const at::Tensor& weight, LayerContext& context) const override;

 protected:
  // `weight`: F32 [N,K], finite, already in the stored basis; it may be overwritten. The layout's tiles give the shape of
  // the scales. Write codes of `grid` only.
  virtual CodedWeight choose_codes(at::Tensor weight, const Grid& grid, const Layout& layout, LayerContext& context) const = 0;

  // From the weight in its source type. Default: checks that it is finite, brings it into the stored basis and calls
  // choose_codes. Override it, too, only to avoid the F32 copy.
  virtual CodedWeight code_weight(const at::Tensor& weight, LayerContext& context) const;
};

}  // namespace qmill
