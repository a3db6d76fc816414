// Everything that a person can choose for one conversion. Front ends fill it; the rules and the pipeline read it.
#pragma once

#include <qmill/core/layer_config.h>
#include <qmill/core/memory.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qmill {

// Layers selected by a pattern, and what becomes of them.
struct CustomLayers {
  std::string pattern;  // regex, searched in the full tensor name; empty: none
  std::string type;     // a format's or quantizer's name; required with a pattern
  std::optional<std::int64_t> block_size;
  std::optional<Scaling> scaling;
  bool simple = false;
  bool heuristic = false;  // skip_inefficient_layers for these
};

struct Fallback {
  std::string type;  // for layers that are excluded; empty: they are kept as they are
  std::optional<std::int64_t> block_size;
  bool simple = false;
};

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

// LoRAs that become part of the weights before these are quantized (docs/lora.md).
struct MergeOptions {
  std::vector<std::filesystem::path> paths = {};
  std::vector<double> strengths = {};  // by path; empty: 1 each
  double scale = 1;                    // of all of them
  bool dampen = true;                  // of several, number i is weakened by 0.9^i
};

struct ConvertOptions {
  std::filesystem::path input;
  std::filesystem::path output;
  bool overwrite = false;
  bool dequantize_source = false;  // a quantized input is decoded first, instead of refused: see decoded_source.h

  // What is written.
  std::string format = "int8";
  StorageOptions storage;
  bool save_quant_metadata = true;
  std::optional<DType> keep_dtype;  // casts floating tensors that are not quantized
  bool clamp_overflow = false;      // keep_dtype f16: clamp instead of refusing

  // Who chooses the values. "auto": gptq for layers with calibration data, rtn for the others.
  std::string quantizer = "auto";
  std::map<std::string, std::map<std::string, OptionValue>> quantizer_options;  // by quantizer, by option

  CalibrationOptions calibration;
  MergeOptions merge;

  // Which layers.
  std::vector<std::string> filters;  // by name; "auto": that of the model, which must be a known one
  CustomLayers custom;
  std::string exclude_layers;  // regex, searched in the full tensor name; empty: none
  Fallback fallback;
  bool skip_inefficient_layers = false;
  std::optional<LayerConfig> layer_config;
  bool layer_config_fullmatch = false;
  double quality_threshold = 30.0;  // dB

  // How. None of these changes a byte of the output.
  std::optional<double> fail_below;  // dB: a layer below it fails the run before anything is published
  int threads = 0;                   // 0: as many as there are processors
  MemoryOptions memory;
  std::string device = "auto";       // auto, cpu, or cuda[:N], of which this build has none
  std::vector<std::string> remarks;  // of the front end, about options that change nothing here: shown with the plan's notes
  bool sync = true;                  // to the disk, before the file gets its name

  std::int64_t seed = 0;
  std::map<std::string, std::string> recorded;  // options that were not defaults, for the file's metadata
};

}  // namespace qmill
