// Calibration data for front ends: what of it a plan uses, and statistics made from sample rows.
#pragma once

#include <qmill/core/export.h>
#include <qmill/core/host.h>

#include <atomic>
#include <limits>

namespace qmill {

// Real inputs of layers, for quantizers that use them and for reports.
struct CalibrationOptions {
  std::filesystem::path data = {};  // sample rows or statistics by layer (docs/calibration.md); empty: none
  std::filesystem::path lora = {};  // layers that this LoRA touches get its directions as their Hessian; empty: none
  std::int64_t samples = std::numeric_limits<std::int64_t>::max();  // rows per layer at most, evenly spaced over those of the data
  bool bias_correction = true;                                      // b' = b + (W - stored W) mean(x), where real inputs are known
  bool smoothquant = false;  // channel maxima weight the columns of layers of which nothing better is known
  double smoothquant_alpha = 0.5;
  bool static_activations = false;  // legacy names: .scale_input is the input_scale of the data
};

// A layer with sample rows of its inputs.
struct CalibratedRows {
  std::string layer;
  std::int64_t rows = 0;        // that are used
  std::int64_t kept_apart = 0;  // of these: nothing is fitted to them
};

// What matched. Names are bases of layers as the model has them, entries as the calibration file has them. Each layer is in one of the
// lists from `with_rows` to `without`.
struct CalibrationAccount {
  std::size_t layers = 0;  // of the model
  std::vector<CalibratedRows> with_rows;
  std::int64_t unused_rows = 0;           // of these layers, beyond CalibrationOptions::samples
  std::vector<std::string> with_hessian;  // without rows
  std::vector<std::string> smoothed;      // the channel maxima weight the columns (smoothquant)
  std::vector<std::string> guided_by_lora;
  std::vector<std::string> with_channels;  // only channel statistics, which nothing asked for
  std::vector<std::string> without;
  std::vector<std::string> unmatched_entries;  // of both files: no layer of the model
  std::vector<std::string> empty_entries;      // with 0 rows, which say nothing: named as in the data

  // Layers of which a quantizer gets a Hessian.
  std::size_t informed() const { return with_rows.size() + with_hessian.size() + smoothed.size() + guided_by_lora.size(); }
};

struct StatisticsOptions {
  std::filesystem::path input;   // sample rows by layer (docs/calibration.md)
  std::filesystem::path output;  // ".json": the channel statistics only
  bool overwrite = false;
  bool sync = true;
  int threads = 0;  // 0: as many as there are processors
};

struct StatisticsReport {
  std::vector<CalibratedRows> layers;  // by name as in the file; nothing is kept apart
  std::size_t distinct = 0;            // layers that share their rows are computed once
  std::vector<std::string> unmatched_entries;
  std::vector<std::string> empty_entries;  // with 0 rows: left out
  std::uint64_t bytes_written = 0;
};

// Publishes options.output, complete, or throws and leaves nothing there: for every `LAYER.input` its Hessian, mean, channel_max,
// channel_mean and input_scale. One layer is in memory at a time. Throws Error(usage) when the output is the input, or exists and may not
// be overwritten.
QMILL_CORE_API StatisticsReport write_statistics(const Host& host, const StatisticsOptions& options, const std::atomic<bool>* cancel = nullptr);

}  // namespace qmill
