// What decides the bytes of an output, and nothing else, as one short text.
#include "io/hash.h"

#include <qmill/core/plan.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

namespace qmill {
namespace {

std::string tensor_text(const TensorInfo& tensor) {
  return fmt::format("{} {} [{}]\n", tensor.name, dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "));
}

std::string target_text(const Decision& decision) {
  const Layout& layout = decision.target.layout;
  std::string text = fmt::format("{} {} {} {}x{} rotated {} {}\n", decision.quantizer->info().name, decision.target.format->info().name,
                                 decision.label.marker, layout.tile_rows, layout.tile_columns, layout.rotation_group,
                                 layout.data == nullptr ? "" : layout.data->text());
  for (const OptionSpec& option : decision.target.options.schema())
    text += fmt::format("{}={}\n", option.name, option_text(decision.target.options.value(option.name)));
  return text;
}

std::string inputs_text(const Plan& plan) {
  if (!plan.calibration_account) return "";
  const CalibrationAccount& account = *plan.calibration_account;
  std::string text;
  for (const CalibratedRows& layer : account.with_rows) text += fmt::format("rows {} {} {}\n", layer.layer, layer.rows, layer.kept_apart);
  for (const std::string& layer : account.with_hessian) text += fmt::format("hessian {}\n", layer);
  for (const std::string& layer : account.smoothed)
    text += fmt::format("smoothed {} {}\n", layer, plan.options.calibration.smoothquant_alpha);
  for (const std::string& layer : account.guided_by_lora) text += fmt::format("guided {}\n", layer);
  return text;
}

std::string merge_text(const Plan& plan) {
  std::string text;
  if (plan.merge_account)
    for (const MergedLora& lora : plan.merge_account->files) text += fmt::format("merged {} {}\n", lora.strength, fmt::join(lora.layers, " "));
  return text;
}

// The larger, the larger the values that it holds; 0: of no type that clamping is about.
int range_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return 1;
    case DType::bf16:
      return 2;
    case DType::f32:
      return 3;
    case DType::f64:
      return 4;
    default:
      return 0;
  }
}

// Whether clamping could change a value.
bool may_overflow(const Decision& decision) {
  const bool is_cast = decision.action == Action::cast || decision.action == Action::merge || decision.action == Action::correct;
  const int target = is_cast ? range_of(decision.outputs.front().dtype) : 0;
  return target != 0 && range_of(decision.values.dtype) > target;
}

}  // namespace

std::string Plan::digest() const {
  std::string text;
  for (const PlannedFile& file : output.files) text += file.header;
  text += inputs_identity;
  bool may_clamp = false;
  for (const Decision& decision : decisions) {
    text += fmt::format("{} {} {}\n", action_name(decision.action), tensor_text(decision.source), fmt::join(decision.merges, " "));
    if (decision.action == Action::quantize) text += target_text(decision);
    if (decision.bias) text += fmt::format("corrects {}\n", *decision.bias);
    may_clamp = may_clamp || may_overflow(decision);
  }
  text += inputs_text(*this) + merge_text(*this) + fmt::format("seed {}\n", seed);
  if (may_clamp) text += fmt::format("clamp {}\n", options.written.clamp_overflow);
  return hash_text(std::as_bytes(std::span(text)));
}

}  // namespace qmill
