// One conversion from input to output: opens, plans and runs. Commands, batches, dequantize() and convert_to_int8() all use it.
#pragma once

#include <qmill/core/convert.h>

namespace qmill {

// One thread at a time. Errors name the model.
class QMILL_CORE_API Conversion {
 public:
  // Opens options.input, decoded if options.dequantize_source or options.decode_to asks for that; reads headers only. `host` must outlive
  // this. Throws Error(io, input, unsupported).
  Conversion(const Host& host, ConvertOptions options);
  ~Conversion();
  Conversion(Conversion&&) noexcept;

  const ConvertOptions& options() const { return options_; }
  const TensorSource& source() const { return *source_; }

  // All files that are read: of the source, calibration data, LoRAs.
  std::vector<std::filesystem::path> input_files() const;

  // Throws Error(usage) when the output is an input, or exists and may not be overwritten.
  void check_destination() const;

  // Made by the first call. Throws as make_plan does.
  const Plan& plan(const std::atomic<bool>* cancel = nullptr);

  // Throws Error(input) with the rules that kept the layers, if the plan quantizes none.
  void require_selection();

  // Plans, if plan() was not called, and publishes options.output, or throws and leaves nothing there. Throws as run_plan does.
  ConvertReport run(const RunHooks& hooks = {});

 private:
  Error& in_model(Error& error) const;

  const Host* host_;
  ConvertOptions options_;
  std::unique_ptr<TensorSource> source_;
  std::optional<Plan> plan_;
};

// What a person should look at: the plan's warnings, and layers below the quality threshold.
QMILL_CORE_API std::vector<std::string> warnings(const Plan& plan, const ConvertReport& report);

// Of the layers that were measured.
QMILL_CORE_API std::vector<LayerQuality> qualities(const ConvertReport& report);

// The result as JSON (docs/json.md), indented.
QMILL_CORE_API std::string report_json(const Plan& plan, const ConvertReport& report);

// <stem>_<quantizer>_<format>[_mixed].safetensors, in the folder of the input.
QMILL_CORE_API std::filesystem::path default_output(const Host& host, const ConvertOptions& options);

}  // namespace qmill
