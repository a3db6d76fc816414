// All options of one conversion, in parts: each room of core gets only the part that it reads.
#pragma once

#include <qmill/core/calibration.h>
#include <qmill/core/layer_selection.h>
#include <qmill/core/lora.h>
#include <qmill/core/run_options.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qmill {

// How layers are stored, and by which quantization algorithm.
struct TargetOptions {
  std::string format = "int8";
  StorageOptions storage;
  std::string quantizer = "auto";  // "auto": by what is known of the inputs of each layer
  std::map<std::string, std::map<std::string, OptionValue>> quantizer_options;  // by quantizer, by option
};

// What else is written.
struct OutputOptions {
  bool save_quant_metadata = true;  // the markers also in the header
  std::optional<DType> keep_dtype;  // casts floating tensors that are not quantized
  bool clamp_overflow = false;      // keep_dtype f16: clamp instead of refusing
  std::optional<std::uint64_t> max_shard_bytes = std::nullopt;  // several files with an index, none larger than this; nothing: one file
};

// The program that the output is for.
enum class TargetReader {
  comfyui,  // layers that ComfyUI cannot load quantized are kept
  any,      // nothing is kept for a reader's sake
};

struct ConvertOptions {
  std::filesystem::path input;
  std::filesystem::path output;
  bool rename = false;             // a text encoder with other names gets those that ComfyUI looks for
  bool dequantize_source = false;  // a quantized input is decoded first, instead of refused: see decoded_source.h
  std::optional<DType> decode_to;  // nothing is quantized: decoded layers are stored as bf16, f16 or f32, all else is copied

  TargetOptions target;
  OutputOptions written;
  TargetReader target_reader = TargetReader::comfyui;
  CalibrationOptions calibration;
  MergeOptions merge;
  LayerSelection layers;
  std::int64_t seed = 0;           // -1: drawn, and recorded in the output
  double quality_threshold = 30.0;  // dB: of heuristics, and of warnings

  std::optional<double> fail_below;  // dB: a layer below it fails the run before anything is published
  RunOptions run;

  std::map<std::string, std::string> recorded;  // options that were not defaults, for the file's metadata
  std::vector<std::string> remarks;             // about options that change nothing here: shown with the plan's notes
};

}  // namespace qmill
