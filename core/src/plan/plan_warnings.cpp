#include "plan/plan_warnings.h"

#include "calibration/calibration.h"
#include "model/source_checks.h"
#include "plan/input_files.h"
#include "plan/option_checks.h"
#include "plan/words.h"

#include <qmill/core/decoded_source.h>
#include <qmill/core/model_identity.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

void add_warnings_of(Plan& plan, const MergedLora& lora) {
  const auto left_out = [&](const std::vector<std::string>& names, const char* noun, const char* why) {
    if (!names.empty())
      plan.warnings.push_back(fmt::format("{} of '{}' {} {}: {}", counted(names.size(), noun), lora.file.string(),
                                          names.size() == 1 ? "is" : "are", why, first_names(names)));
  };
  left_out(lora.unmatched, "tensor", "of no layer of the model and not merged");
  left_out(lora.mismatched, "layer", "of another size than in the model and not merged");
  if (lora.unaffected == 0) return;
  const std::string what =
      lora.unaffected == lora.layers.size() ? "changes nothing" : fmt::format("leaves {} unchanged", counted(lora.unaffected, "layer"));
  plan.warnings.push_back(fmt::format("'{}' {}: its {} is 0", lora.file.string(), what, lora.strength == 0 ? "strength" : "alpha"));
}

}  // namespace

void add_source_warnings(Plan& plan, const TensorSource& source) {
  const std::vector<StoredLayerEntry> layers = decoded_layers(source);
  if (!layers.empty())
    plan.warnings.push_back(fmt::format("the source was quantized ({}): what that lost stays lost", formats_text(layers)));
  else if (plan.options.dequantize_source)
    plan.warnings.push_back("`dequantize_source` changes nothing: no layer of the source is quantized");
  if (const std::vector<std::string> codes = unexplained_codes(source); !codes.empty())
    plan.warnings.push_back(
        fmt::format("{} of whole numbers, which are copied: if they are codes of a quantizer, the model is "
                    "quantized already, and this file is wrong: {}",
                    codes.size() == 1 ? "1 weight is" : fmt::format("{} weights are", codes.size()), first_names(codes)));
  std::vector<std::string> others;
  for (const std::filesystem::path& other : files_beside(source, plan.options.input)) others.push_back(other.filename().string());
  if (!others.empty())
    plan.warnings.push_back(fmt::format("{} {} in the folder and no part of the model, as the index does not name {}: {}",
                                        counted(others.size(), "file"), others.size() == 1 ? "is" : "are",
                                        others.size() == 1 ? "it" : "them", first_names(others)));
}

void add_remarks(Plan& plan, const TensorSource& source) {
  plan.remarks = plan.options.remarks;
  for (std::string& remark : source_remarks(source)) plan.remarks.push_back(std::move(remark));
  for (std::string& remark : idle_options(plan.options)) plan.remarks.push_back(std::move(remark));
  if (plan.calibration_account && plan.calibration_account->unused_rows != 0)
    plan.remarks.push_back(fmt::format("{} calibration rows are not used: at most {} rows per layer are (`calib_samples`)",
                                       plan.calibration_account->unused_rows, plan.options.calibration.samples));
}

void add_calibration_warnings(Plan& plan, const TensorSource& source) {
  if (!plan.calibration_account) return;
  // A source that is renamed or decoded has other names and types than the file that the inputs were recorded from.
  const std::string recorded = plan.options.rename || !decoded_layers(source).empty() ? std::string() : plan.calibration->recorded_model();
  if (!recorded.empty())
    if (const std::string difference = identity_difference(recorded, model_identity(source)); !difference.empty())
      plan.warnings.push_back(fmt::format("'{}' was recorded from another model: {}", plan.options.calibration.data.string(), difference));
  const CalibrationAccount& account = *plan.calibration_account;
  if (const std::vector<std::string>& entries = account.unmatched_entries; !entries.empty()) {
    const std::string names = first_names(entries);
    plan.warnings.push_back(entries.size() == 1
                                ? fmt::format("1 calibration entry matches no layer of the model: {}", names)
                                : fmt::format("{} calibration entries match no layer of the model: {}", entries.size(), names));
  }
  if (const std::vector<std::string>& entries = account.empty_entries; !entries.empty())
    plan.warnings.push_back(fmt::format("{} with 0 rows count{} as no data: {}",
                                        entries.size() == 1 ? "1 calibration entry" : fmt::format("{} calibration entries", entries.size()),
                                        entries.size() == 1 ? "s" : "", first_names(entries)));
  if (!account.with_channels.empty())
    plan.warnings.push_back(
        fmt::format("of {} only channel statistics are known, such as '{}': nothing uses them without `smoothquant` "
                    "and channel_max",
                    counted(account.with_channels.size(), "layer"), account.with_channels.front()));
  if (plan.options.calibration.smoothquant && account.smoothed.empty())
    plan.warnings.push_back(
        "`smoothquant` changes nothing: no layer has channel_max without rows or a Hessian, which weight the columns "
        "already");
}

void add_merge_warnings(Plan& plan) {
  if (!plan.merge_account) return;
  for (const MergedLora& lora : plan.merge_account->files) add_warnings_of(plan, lora);
  std::vector<std::string> removed;
  for (const Decision& decision : plan.decisions)
    if (decision.action == Action::remove && !decision.merges.empty()) removed.push_back(decision.source.name);
  if (!removed.empty())
    plan.warnings.push_back(fmt::format("{} that LoRAs change {} removed: {}", counted(removed.size(), "tensor"),
                                        removed.size() == 1 ? "is" : "are", first_names(removed)));
}

}  // namespace qmill
