// How far a layer's outputs are from those of its source, for inputs that are given.
#pragma once

#include "../run/resources.h"
#include "row_decoder.h"

#include <qmill/core/quality.h>
#include <qmill/quantizer.h>

namespace qmill {

// Of inputs X [V,K], a weight W [N,K] and versions of it.
struct OutputSums {
  double squared_output = 0;           // of X W^T
  std::vector<double> squared_errors;  // of X (W - version)^T
  std::int64_t rows = 0;               // V

  void merge(const OutputSums& other);  // sums of other inputs
  // ||X W^T - X version^T|| / ||X W^T||, Frobenius norms. 0 without any error, infinite when only the error is not zero.
  double relative(std::size_t version) const;
};

// `inputs` F32 [V,K]; `weight` [N,K], floating. In groups of rows of W whose size comes from the shape alone, with single-threaded
// products and sums in F64: the same figures for every number of threads.
OutputSums measure_output(const at::Tensor& inputs, const at::Tensor& weight, std::span<const RowDecoder> versions, TaskPool& tasks);

// Whether a layer that this stores is what others are measured by.
bool is_plain_rounding(const Quantizer& quantizer);

// The output error of one layer as it is stored and, as a yardstick, of plain rounding in the same layout.
class LayerOutput {
 public:
  // Borrows `weight` and `resources`. `is_rounded`: plain rounding stored it, so that it is its own yardstick.
  LayerOutput(const TensorInfo& info, const at::Tensor& weight, RowDecoder stored, const Format& format, const Layout& layout,
              bool is_rounded, const RunResources& resources);

  void add(const at::Tensor& inputs);
  // Leaves `quality` alone when no inputs were added.
  void report(LayerQuality& quality) const;

 private:
  const at::Tensor& weight_;
  const RunResources& resources_;
  const bool is_rounded_;
  std::vector<RowDecoder> versions_;  // stored, then rounded
  OutputSums sums_;
};

}  // namespace qmill
