// The quality report for tensors in memory, without files: the same figures and the same text as those of a conversion.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/quality.h>

namespace qmill {

class QMILL_CORE_API QualityReporter {
 public:
  explicit QualityReporter(double threshold = 30.0);  // dB

  // Of the same shape, floating, on the CPU; the types may differ. Throws Error(usage) that names the layer otherwise.
  void add_layer(std::string name, const at::Tensor& original, const at::Tensor& dequantized);
  // With the output error on `inputs` [rows, K], floating, for matrices [N, K].
  void add_layer(std::string name, const at::Tensor& original, const at::Tensor& dequantized, const at::Tensor& inputs);

  const std::vector<LayerQuality>& layers() const { return layers_; }  // in the order of the calls
  std::string get_report_string() const;

 private:
  void add(std::string name, const at::Tensor& original, const at::Tensor& dequantized, const at::Tensor* inputs);

  double threshold_;
  std::vector<LayerQuality> layers_;
};

}  // namespace qmill
