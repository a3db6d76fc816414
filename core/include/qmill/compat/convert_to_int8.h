// Converts a file, with the parameters that users of Python tools know.
#pragma once

#include <qmill/compat/constants.h>
#include <qmill/core/convert.h>
#include <qmill/core/export.h>

#include <optional>

namespace qmill {

// What each parameter does: docs/api-coverage.md. Absent values mean "not given".
struct ConvertToInt8Options {
  std::string input_file = {};   // what a loader opens: .safetensors, an index, a folder of shards, ...
  std::string output_file = {};  // replaced if it exists, at once and only by a complete file
  bool comfy_quant = true;       // ComfyUI's names and markers
  FilterFlags filter_flags = {};
  std::int64_t calib_samples = 6144;  // rows of calibration data per layer, at most
  std::int64_t seed = 0;              // -1: a new one, logged and stored
  bool fp16 = false;
  std::optional<std::string> fallback = std::nullopt;  // int8, fp16, or a format's or quantizer's name
  std::optional<std::string> custom_layers = std::nullopt;
  std::optional<std::string> exclude_layers = std::nullopt;
  std::optional<std::string> custom_type = std::nullopt;
  std::optional<std::int64_t> custom_block_size = std::nullopt;
  std::optional<std::string> custom_scaling_mode = std::nullopt;
  bool custom_simple = false;
  bool custom_heur = false;
  std::optional<std::int64_t> fallback_block_size = std::nullopt;
  bool fallback_simple = false;
  bool full_precision_matrix_mult = false;
  bool skip_inefficient_layers = false;
  bool include_input_scale = false;
  bool no_learned_rounding = false;
  bool save_quant_metadata = false;
  std::optional<LayerConfig> layer_config = std::nullopt;
  bool layer_config_fullmatch = false;
  bool low_memory = false;
  std::optional<std::string> streaming_mode = std::nullopt;  // absent: what STREAMING_AGGRESSIVENESS says, else "balanced"
  std::map<std::string, std::optional<std::int64_t>> streaming_thresholds = {};
  bool no_memory_limits = false;
  bool report_quality = false;
  double quality_threshold = 30.0;  // dB
  bool smoothquant = false;
  double smoothquant_alpha = 0.5;
  std::optional<std::string> calibration_data_path = std::nullopt;
  std::optional<std::string> calibration_lora_path = std::nullopt;
  bool gptq_actorder = false;
  bool gptq_fast = true;
  bool gptq_turbo = false;
  bool quip_actorder = true;
  bool quip_hadamard = true;
  std::optional<std::int64_t> quip_seed = std::nullopt;
  bool quip_store_transformed = false;
  std::string quip_requant_scheme = "tensor";
  bool quip_requant_tensor_per_row = true;
  bool quip_checkpointed = false;
  std::int64_t quip_checkpoint_threshold = 8192;
  std::int64_t quip_checkpoint_segments = 4;
  std::optional<std::string> merge_lora_path = std::nullopt;
  std::vector<std::string> merge_lora_paths = {};
  double merge_lora_scale = 1.0;
  bool merge_lora_dampen = true;
  // Every option of the command by its name with underscores, such as optimizer, format, scaling_mode, convrot, threads; and the options of
  // the optimizer by their own names ("num_iter", "lr"). An unknown name is an error that names the nearest.
  std::map<std::string, OptionValue> converter_kwargs = {};
};

// As the command convert does, with the default host. Warnings, and with report_quality the quality of every layer, are logged
// (qmill/core/logging.h). Throws Error; then nothing is at output_file that was not there before.
QMILL_CORE_API ConvertReport convert_to_int8(const ConvertToInt8Options& options);
// With plugins of another host, and to be followed or ended on the way. `json`: gets the result as report_json() has it; may be null.
QMILL_CORE_API ConvertReport convert_to_int8(const Host& host, const ConvertToInt8Options& options, const RunHooks& hooks = {},
                                             std::string* json = nullptr);

}  // namespace qmill
