// How close stored weights are to their source.
#pragma once

#include <qmill/core/export.h>
#include <qmill/stored_format.h>
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
  // ||X W^T - X What^T|| / ||X W^T|| over inputs X that no quantizer fitted to; nothing: there are none for this layer.
  std::optional<double> output_error = std::nullopt;
  // The same of plain rounding in the same layout; nothing, too, for a layout without codes.
  std::optional<double> rounding_output_error = std::nullopt;
  std::int64_t output_rows = 0;  // rows of X
  bool is_measured = true;       // false: the run was not to measure, and there are no figures
};

QMILL_CORE_API LayerQuality layer_quality(std::string name, const FormatLabel& label, const ErrorSums& sums);

// What a verdict about a layer rests on. Calibrated quantizers give up SQNR of the weights for outputs that are closer: where
// there are inputs, the outputs are judged, and the bar is what plain rounding does to them.
enum class Judgment { weights, outputs };

QMILL_CORE_API Judgment judgment(const LayerQuality& layer);

// By weights: SQNR below `threshold` (dB). By outputs: an error of more than 1.02 times plain rounding's. NaN is below.
QMILL_CORE_API bool is_below(const LayerQuality& layer, double threshold);

// Of a layer that is_below: "a.q has 12.00 dB, below 30.00 dB".
QMILL_CORE_API std::string shortfall_text(const LayerQuality& layer, double threshold);

// The signal-to-noise ratio that --fail-below is about, dB: of the outputs where their error is known, else of the weights. Nothing: exact.
QMILL_CORE_API std::optional<double> signal_to_noise_db(const LayerQuality& layer);

struct QualitySummary {
  std::size_t layers = 0;
  std::size_t exact = 0;            // stored without error; not in the mean
  std::size_t below_threshold = 0;  // is_below
  std::optional<double> mean_sqnr_db;
  const LayerQuality* worst = nullptr;  // by SQNR

  std::size_t judged_by_outputs = 0;
  std::size_t below_by_outputs = 0;  // of below_threshold
  std::optional<double> mean_output_error;
  std::optional<double> mean_rounding_output_error;
  std::optional<double> output_vs_rounding;    // quotient of the two means, over layers that have both
  const LayerQuality* worst_output = nullptr;  // by its own quotient
};

QMILL_CORE_API QualitySummary summarize(const std::vector<LayerQuality>& layers, double threshold);

// output_error / rounding_output_error; 1 when both are zero. Nothing unless both are known.
QMILL_CORE_API std::optional<double> output_vs_rounding(const LayerQuality& layer);

// The table that the existing tools' users know, sorted by name; with columns about outputs when any are known.
QMILL_CORE_API std::string quality_report_text(std::vector<LayerQuality> layers, double threshold);

// The layers and their means as JSON (docs/json.md), indented.
QMILL_CORE_API std::string quality_json(const std::vector<LayerQuality>& layers);

}  // namespace qmill
