// How close stored weights are to their source.
#pragma once

#include <qmill/format.h>
#include <qmill/numerics/row_kernels.h>

#include <optional>
#include <string>
#include <vector>

namespace qmill {

// Of one layer, over all its values: source minus what a reader decodes from the stored tensors.
struct LayerQuality {
  std::string name;    // layer_base
  std::string format;  // as files name it: "int8_tensorwise"
  std::string layout;  // "int8 row, rotated 256"
  double mse = 0;
  std::optional<double> sqnr_db;  // 10 log10(mean x^2 / mse); nothing when the layer is stored without any error
  double max_error = 0;
};

LayerQuality layer_quality(std::string name, const FormatLabel& label, const ErrorSums& sums);

struct QualitySummary {
  std::size_t layers = 0;
  std::size_t exact = 0;  // stored without error; not in the mean
  std::size_t below_threshold = 0;
  std::optional<double> mean_sqnr_db;
  const LayerQuality* worst = nullptr;
};

QualitySummary summarize(const std::vector<LayerQuality>& layers, double threshold);

// The table that the existing tools' users know, sorted by name.
std::string quality_report_text(std::vector<LayerQuality> layers, double threshold);

}  // namespace qmill
