#include <qmill/core/quality.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

constexpr double kTolerance = 1.02;  // of plain rounding's output error: few rows do not tell smaller differences

// The mean of what there is.
class Mean {
 public:
  void add(double value) { sum_ += value, ++count_; }
  std::optional<double> value() const { return count_ == 0 ? std::nullopt : std::optional(sum_ / static_cast<double>(count_)); }

 private:
  double sum_ = 0;
  std::size_t count_ = 0;
};

double quotient(double error, double yardstick) { return error == yardstick ? 1 : error / yardstick; }

std::string percent(const std::optional<double>& value) { return value ? fmt::format("{:.1f} %", 100 * *value) : "-"; }

}  // namespace

LayerQuality layer_quality(std::string name, const FormatLabel& label, const ErrorSums& sums) {
  LayerQuality quality{std::move(name), label.name, label.summary, 0, std::nullopt, sums.largest_error};
  if (sums.count == 0) return quality;
  quality.mse = sums.squared_error / static_cast<double>(sums.count);
  if (sums.squared_error != 0) quality.sqnr_db = 10 * std::log10(sums.squared_signal / sums.squared_error);
  return quality;
}

Judgment judgment(const LayerQuality& layer) {
  return layer.output_error && layer.rounding_output_error ? Judgment::outputs : Judgment::weights;
}

bool is_below(const LayerQuality& layer, double threshold) {
  if (judgment(layer) == Judgment::outputs) return !(*layer.output_error <= *layer.rounding_output_error * kTolerance);
  return layer.sqnr_db && !(*layer.sqnr_db >= threshold);
}

std::string shortfall_text(const LayerQuality& layer, double threshold) {
  if (judgment(layer) == Judgment::weights)
    return fmt::format("{} has {:.2f} dB, below {:.2f} dB", layer.name, layer.sqnr_db.value_or(std::numeric_limits<double>::infinity()),
                       threshold);
  return fmt::format("{} has an output error of {:.4g} % on {} kept rows, plain rounding has {:.4g} %", layer.name,
                     100 * *layer.output_error, layer.output_rows, 100 * *layer.rounding_output_error);
}

std::optional<double> signal_to_noise_db(const LayerQuality& layer) {
  if (!layer.output_error) return layer.sqnr_db;
  return *layer.output_error == 0 ? std::nullopt : std::optional(-20 * std::log10(*layer.output_error));
}

std::optional<double> output_vs_rounding(const LayerQuality& layer) {
  if (judgment(layer) != Judgment::outputs) return std::nullopt;
  return quotient(*layer.output_error, *layer.rounding_output_error);
}

QualitySummary summarize(const std::vector<LayerQuality>& layers, double threshold) {
  QualitySummary summary;
  summary.layers = layers.size();
  Mean sqnr, output, rounding, output_of_both;
  for (const LayerQuality& layer : layers) {
    const bool below = is_below(layer, threshold);
    if (below) ++summary.below_threshold;
    if (layer.output_error) output.add(*layer.output_error);
    if (layer.rounding_output_error) rounding.add(*layer.rounding_output_error);
    if (const std::optional<double> ratio = output_vs_rounding(layer)) {
      ++summary.judged_by_outputs;
      if (below) ++summary.below_by_outputs;
      output_of_both.add(*layer.output_error);
      const std::optional<double> worst = summary.worst_output == nullptr ? std::nullopt : output_vs_rounding(*summary.worst_output);
      if (!worst || *ratio > *worst || std::isnan(*ratio)) summary.worst_output = &layer;
    }
    if (!layer.sqnr_db) {
      ++summary.exact;
      continue;
    }
    sqnr.add(*layer.sqnr_db);
    const bool is_worse = summary.worst == nullptr || !(*layer.sqnr_db >= *summary.worst->sqnr_db);
    if (is_worse) summary.worst = &layer;
  }
  summary.mean_sqnr_db = sqnr.value();
  summary.mean_output_error = output.value();
  summary.mean_rounding_output_error = rounding.value();
  // A rounding error comes with an output error, so the layers that have both are those that `rounding` counted.
  if (summary.judged_by_outputs != 0) summary.output_vs_rounding = quotient(*output_of_both.value(), *rounding.value());
  return summary;
}

std::string quality_report_text(std::vector<LayerQuality> layers, double threshold) {
  if (layers.empty()) return "No quality metrics were collected.\n";
  std::sort(layers.begin(), layers.end(), [](const LayerQuality& a, const LayerQuality& b) { return a.name < b.name; });
  const QualitySummary summary = summarize(layers, threshold);
  const bool has_outputs = summary.mean_output_error.has_value();
  const std::string rule(has_outputs ? 114 : 88, '-');
  std::string text = "Quantization Quality Report:\n";
  text += fmt::format("{:<50} | {:<10} | {:<10} | {:<10}", "Layer", "MSE", "SQNR (dB)", "Max Error");
  if (has_outputs) text += fmt::format(" | {:<10} | {:<10}", "Output Err", "vs rtn");
  text += fmt::format("\n{}\n", rule);
  for (const LayerQuality& layer : layers) {
    text += fmt::format("{:<50} | {:.8f} | {:.2f}      | {:.4f}", layer.name, layer.mse,
                        layer.sqnr_db.value_or(std::numeric_limits<double>::infinity()), layer.max_error);
    if (has_outputs)
      text += fmt::format("     | {:<10} | {}", layer.output_error ? fmt::format("{:.6f}", *layer.output_error) : "-",
                          percent(output_vs_rounding(layer)));
    text += "\n";
  }
  text += rule + "\nSummary:\n";
  text += summary.mean_sqnr_db ? fmt::format("  Mean SQNR: {:.2f} dB\n", *summary.mean_sqnr_db) : "  Mean SQNR: inf dB\n";
  if (has_outputs) {
    text += fmt::format("  Mean Output Error: {:.6f}", *summary.mean_output_error);
    if (summary.output_vs_rounding) text += fmt::format(" ({} of plain rounding's)", percent(summary.output_vs_rounding));
    text += "\n";
  }
  const std::size_t by_weights = summary.layers - summary.judged_by_outputs;
  if (summary.judged_by_outputs != 0)
    text += fmt::format("  Layers judged by their outputs, worse than plain rounding: {} / {}\n", summary.below_by_outputs,
                        summary.judged_by_outputs);
  if (by_weights != 0)
    text += fmt::format("  Layers below {:.1f} dB: {} / {}\n", threshold, summary.below_threshold - summary.below_by_outputs, by_weights);
  return text;
}

}  // namespace qmill
