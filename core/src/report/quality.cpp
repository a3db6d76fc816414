#include <qmill/core/quality.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qmill {

LayerQuality layer_quality(std::string name, const FormatLabel& label, const ErrorSums& sums) {
  LayerQuality quality{std::move(name), label.name, label.summary, 0, std::nullopt, sums.largest_error};
  if (sums.count == 0) return quality;
  quality.mse = sums.squared_error / static_cast<double>(sums.count);
  if (sums.squared_error != 0) quality.sqnr_db = 10 * std::log10(sums.squared_signal / sums.squared_error);
  return quality;
}

QualitySummary summarize(const std::vector<LayerQuality>& layers, double threshold) {
  QualitySummary summary;
  summary.layers = layers.size();
  double sum = 0;
  for (const LayerQuality& layer : layers) {
    if (!layer.sqnr_db) {
      ++summary.exact;
      continue;
    }
    sum += *layer.sqnr_db;
    // Written so that NaN counts as below.
    if (!(*layer.sqnr_db >= threshold)) ++summary.below_threshold;
    const bool is_worse = summary.worst == nullptr || !(*layer.sqnr_db >= *summary.worst->sqnr_db);
    if (is_worse) summary.worst = &layer;
  }
  if (const std::size_t measured = layers.size() - summary.exact; measured != 0) summary.mean_sqnr_db = sum / static_cast<double>(measured);
  return summary;
}

std::string quality_report_text(std::vector<LayerQuality> layers, double threshold) {
  if (layers.empty()) return "No quality metrics were collected.\n";
  std::sort(layers.begin(), layers.end(), [](const LayerQuality& a, const LayerQuality& b) { return a.name < b.name; });
  const std::string rule(88, '-');
  std::string text = "Quantization Quality Report:\n";
  text += fmt::format("{:<50} | {:<10} | {:<10} | {:<10}\n{}\n", "Layer", "MSE", "SQNR (dB)", "Max Error", rule);
  for (const LayerQuality& layer : layers)
    text += fmt::format("{:<50} | {:.8f} | {:.2f}      | {:.4f}\n", layer.name, layer.mse,
                        layer.sqnr_db.value_or(std::numeric_limits<double>::infinity()), layer.max_error);
  const QualitySummary summary = summarize(layers, threshold);
  text += rule + "\nSummary:\n";
  text += summary.mean_sqnr_db ? fmt::format("  Mean SQNR: {:.2f} dB\n", *summary.mean_sqnr_db) : "  Mean SQNR: inf dB\n";
  text += fmt::format("  Layers below {:.1f} dB: {} / {}\n", threshold, summary.below_threshold, summary.layers);
  return text;
}

}  // namespace qmill
