#include "options/rows.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

void set_merge(ConvertOptions& options, const OptionValues& values) {
  std::vector<std::string> files = values.list("merge_loras");
  if (values.has("merge_lora")) files.push_back(values.text("merge_lora"));
  for (const std::string& file : files) {
    const LoraToMerge lora = parse_lora_to_merge(file);
    options.merge.paths.push_back(lora.file);
    options.merge.strengths.push_back(lora.strength);
  }
  options.merge.scale = values.real("merge_lora_scale");
  options.merge.dampen = values.on("merge_lora_dampen");
  options.merge.partial = values.on("merge_lora_partial");
  options.merge.skip_mismatched = values.on("merge_lora_skip_mismatched");
  for (const char* name : {"merge_lora_scale", "merge_lora_dampen", "merge_lora_partial", "merge_lora_skip_mismatched"})
    if (files.empty() && values.given(name))
      throw Error(ErrorKind::usage, fmt::format("`{}` needs `merge_lora` or `merge_loras`", name));
}

}  // namespace

void add_input_rows(Rows& rows) {
  RowGroup calibration(rows, "Calibration");
  OptionRow& data = calibration.optional(
      "calibration_data", "FILE", std::string(),
      "sample rows or statistics of the layers' inputs, .safetensors or .json (docs/calibration.md)",
      [](ConvertOptions& options, const OptionValues& values) { options.calibration.data = values.text("calibration_data"); });
  data.is_path = data.is_common = true;
  OptionRow& samples = calibration.value("calib_samples", "N", std::int64_t{6144},
                                         "most rows per layer to use, evenly spaced over the data",
                                         [](ConvertOptions& options, const OptionValues& values) {
                                           options.calibration.samples = values.integer("calib_samples");
                                           if (values.given("calib_samples") && !values.has("calibration_data"))
                                             options.remarks.emplace_back(
                                                 "`calib_samples` changes nothing without `calibration_data`: noise says nothing about real "
                                                 "inputs");
                                         });
  samples.spec.at_least = 1;
  samples.spec.at_most = kLargestInteger;
  calibration
      .optional("calibration_lora", "FILE", std::string(), "for layers without data: keep the error small in directions of this LoRA",
                [](ConvertOptions& options, const OptionValues& values) { options.calibration.lora = values.text("calibration_lora"); })
      .is_path = true;
  calibration.toggle(
      "bias_correction", true, "where the mean input is known, correct biases by the error of the mean output",
      [](ConvertOptions& options, const OptionValues& values) { options.calibration.bias_correction = values.on("bias_correction"); });
  calibration.toggle("smoothquant", false, "weight the columns by channel_max in layers without rows or a Hessian",
                     [](ConvertOptions& options, const OptionValues& values) { options.calibration.smoothquant = values.on("smoothquant"); });
  OptionRow& alpha = calibration.value("smoothquant_alpha", "A", 0.5, "0 to 1: how much of that comes from the inputs, not the weights",
                                       [](ConvertOptions& options, const OptionValues& values) {
                                         options.calibration.smoothquant_alpha = values.real("smoothquant_alpha");
                                         if (values.given("smoothquant_alpha") && !values.on("smoothquant"))
                                           throw Error(ErrorKind::usage, "`smoothquant_alpha` needs `smoothquant`");
                                       });
  alpha.spec.at_least = 0;
  alpha.spec.at_most = 1;

  RowGroup merge(rows, "LoRA");
  merge
      .optional("merge_lora", "FILE", std::string(),
                "merge this LoRA into the model before anything else (docs/lora.md); FILE:0.8 sets its own strength", set_merge)
      .is_path = true;
  OptionRow& loras = merge.optional("merge_loras", "FILE...", std::string(), "merge several, in this order; `merge_lora` comes last");
  loras.is_list = loras.takes_words = loras.is_path = true;
  merge.value("merge_lora_scale", "S", 1.0, "strength of all LoRAs");
  merge.toggle("merge_lora_dampen", true, "weaken LoRA number i of several, counted from 0, by 0.9^i");
  merge.toggle("merge_lora_partial", false, "merge what fits of a LoRA, even if it also has layers that the model does not have");
  merge.toggle("merge_lora_skip_mismatched", false, "leave out layers whose size in the LoRA is not that of the model");
}

}  // namespace qmill
