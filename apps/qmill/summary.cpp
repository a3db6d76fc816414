#include "summary.h"

#include "shared_run.h"
#include "text.h"

#include <qmill/core/process.h>
#include <qmill/core/readers.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace qmill::app {
namespace {

std::string line(std::string_view label, const std::string& text) {
  return fmt::format("  {:<10} {}\n", label, printable(as_flags(text)));
}

std::uint64_t bytes_of(const std::vector<TensorInfo>& tensors) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) bytes += static_cast<std::uint64_t>(tensor.bytes());
  return bytes;
}

// Lines with the same label: the first few, and how many more there are.
std::string lines(std::string_view label, const std::vector<std::string>& texts) {
  std::string result;
  for (std::size_t i = 0; i < std::min(texts.size(), kMaxLines); ++i) result += line(i == 0 ? label : "", texts[i]);
  if (texts.size() > kMaxLines) result += line("", fmt::format("and {} more (--json or --report has all)", texts.size() - kMaxLines));
  return result;
}

std::string kept_text(const std::string& rule) {
  if (rule == "empty") return "kept: without values";
  if (rule == "primary") return "stored so already";
  return fmt::format("kept by {}", rule);
}

std::string layer_lines(const Plan& plan) {
  std::map<std::string, std::size_t> quantized, kept;
  std::size_t copied = 0, cast = 0, corrected = 0, merged = 0, removed = 0;
  for (const Decision& decision : plan.decisions) {
    switch (decision.action) {
      case Action::quantize:
        ++quantized[fmt::format("{} ({})", decision.label.summary, decision.quantizer->info().name)];
        break;
      case Action::correct:
        ++corrected;
        break;
      case Action::remove:
        ++removed;
        break;
      case Action::cast:
        ++cast;
        break;
      case Action::merge:
        ++merged;
        break;
      case Action::copy:
        decision.is_layer ? ++kept[decision.rule] : ++copied;
        break;
    }
  }
  std::vector<std::string> texts;
  for (const auto& [what, count] : quantized) texts.push_back(fmt::format("{} {}", count, what));
  std::string text = lines("quantized", texts);
  std::string rest = count_text(copied, "other tensor") + " copied";
  for (const auto& [rule, count] : kept) rest += fmt::format(", {} {}", count_text(count, "layer"), kept_text(rule));
  if (corrected != 0) rest += fmt::format(", {} {} corrected", corrected, corrected == 1 ? "bias" : "biases");
  if (merged != 0) rest += fmt::format(", {} merged", merged);
  if (cast != 0) rest += fmt::format(", {} cast", cast);
  if (removed != 0) rest += fmt::format(", {} removed", removed);
  return text + line("the rest", rest);
}

// Notes of layers that share their text, with how many share it.
std::vector<std::string> counted(const std::vector<std::pair<std::string, std::string>>& notes) {
  std::map<std::string, std::pair<std::size_t, std::string>> by_text;
  for (const auto& [layer, note] : notes) {
    auto& [count, example] = by_text[note];
    if (count++ == 0) example = layer;
  }
  std::vector<std::string> texts;
  for (const auto& [note, entry] : by_text)
    texts.push_back(entry.first == 1 ? fmt::format("{}: {}", entry.second, note)
                                     : fmt::format("{} layers, such as {}: {}", entry.first, entry.second, note));
  return texts;
}

std::vector<std::pair<std::string, std::string>> layout_notes(const Plan& plan) {
  std::vector<std::pair<std::string, std::string>> notes;
  for (const Decision& decision : plan.decisions)
    if (decision.action == Action::quantize && !decision.target.layout.note.empty())
      notes.emplace_back(layer_base(decision.source.name), decision.target.layout.note);
  return notes;
}

std::string reader_line(const Plan& plan) {
  const std::string readers = readers_text(plan);
  return readers.empty() ? "" : line("readers", readers);
}

std::string rows_text(const std::vector<CalibratedRows>& layers) {
  const auto by_rows = [](const CalibratedRows& a, const CalibratedRows& b) { return a.rows < b.rows; };
  const auto [fewest, most] = std::minmax_element(layers.begin(), layers.end(), by_rows);
  const std::string rows = fewest->rows == most->rows ? std::to_string(most->rows) : fmt::format("{} to {}", fewest->rows, most->rows);
  const std::string kept = fewest->kept_apart == most->kept_apart ? std::to_string(most->kept_apart)
                                                                  : fmt::format("{} to {}", fewest->kept_apart, most->kept_apart);
  std::string text = fmt::format("{} with {} rows, {} of them kept apart", count_text(layers.size(), "layer"), rows, kept);
  if (fewest->kept_apart == 0) text += " (of fewer than 5 rows none can be)";
  return text;
}

// "24 lora, 1 diff"
std::string counts_text(const std::map<std::string, std::size_t>& counts) {
  std::string text;
  for (const auto& [what, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, what);
  return text;
}

// What was merged into what, file by file.
std::string merge_lines(const Plan& plan) {
  if (!plan.merge_account) return "";
  std::vector<std::string> texts;
  for (const MergedLora& lora : plan.merge_account->files) {
    std::string text =
        fmt::format("{} at {:g}: {} ({}), {} unmatched", lora.file.filename().string(), lora.strength,
                    count_text(lora.layers.size(), "layer"), counts_text(lora.kinds), count_text(lora.unmatched.size(), "tensor"));
    if (!lora.for_other_models.empty()) text += fmt::format(", {} for other models", lora.for_other_models.size());
    if (!lora.mismatched.empty()) text += fmt::format(", {} of another size left out", count_text(lora.mismatched.size(), "layer"));
    if (const auto by_rank = lora.alpha.find("rank"); by_rank != lora.alpha.end())
      text += fmt::format(", {} without alpha", by_rank->second);
    texts.push_back(std::move(text));
  }
  std::string text;
  for (const std::string& each : texts) text += line(text.empty() ? "merged" : "", each);
  return text;
}

// What is known of the layers' inputs; where a quantizer asks and there is nothing, what that means.
std::string calibration_lines(const Plan& plan) {
  if (!plan.calibration_account) {
    const bool asks = std::any_of(plan.decisions.begin(), plan.decisions.end(), [](const Decision& decision) {
      return decision.quantizer != nullptr && decision.quantizer->info().uses_calibration;
    });
    return asks ? line("inputs", "no calibration data: the Hessian is the identity") : "";
  }
  const CalibrationAccount& account = *plan.calibration_account;
  std::vector<std::string> texts;
  if (!account.with_rows.empty()) texts.push_back(rows_text(account.with_rows));
  const auto add = [&](const std::vector<std::string>& layers, const char* what) {
    if (!layers.empty()) texts.push_back(fmt::format("{} {}", count_text(layers.size(), "layer"), what));
  };
  add(account.with_hessian, "with a Hessian, no rows to keep apart");
  add(account.smoothed, "weighted by channel_max");
  add(account.guided_by_lora, "guided by the LoRA");
  add(account.with_channels, "with channel statistics only");
  add(account.without, "without data: the Hessian is the identity");
  std::string text;
  for (const std::string& each : texts) text += line(text.empty() ? "inputs" : "", each);
  return text;
}

std::string model_line(const Plan& plan) {
  if (plan.architecture.empty()) return "";
  return line("model",
              plan.filters.empty() ? plan.architecture : fmt::format("{}, filter {}", plan.architecture, fmt::join(plan.filters, ", ")));
}

// Of a model in several files.
std::string source_line(const Plan& plan) {
  if (plan.source_files.size() < 2) return "";
  return line("source", fmt::format("{} files, {} to {}", plan.source_files.size(), plan.source_files.front().filename().string(),
                                    plan.source_files.back().filename().string()));
}

// What is written, where it is not the one file that was asked for.
std::string output_files_line(const Plan& plan) {
  if (!plan.output.has_shards()) return "";
  const std::vector<std::filesystem::path> files = plan.output_files();
  return line("files", fmt::format("{} files, {} to {}, and {}", plan.output.files.size(), files.front().filename().string(),
                                   files[plan.output.files.size() - 1].filename().string(), files.back().filename().string()));
}

std::string quantizer_line(const Plan& plan) {
  std::string text = model_line(plan);
  if (!plan.chosen_because.empty()) text += line("optimizer", fmt::format("auto chose {}: {}", plan.chosen_quantizer, plan.chosen_because));
  return text + calibration_lines(plan);
}

std::string size_line(std::uint64_t before, std::uint64_t after) {
  return line("size", fmt::format("{} -> {} ({:.0f} %)", bytes_text(before), bytes_text(after),
                                  100.0 * static_cast<double>(after) / static_cast<double>(std::max<std::uint64_t>(1, before))));
}

std::string quality_line(const Plan& plan, const ConvertReport& report) {
  if (!plan.options.run.measures) return line("quality", "not measured (--quality off)");
  const std::vector<LayerQuality> layers = qualities(report);  // the summary points into it
  const QualitySummary summary = summarize(layers, plan.options.quality_threshold);
  if (summary.worst == nullptr) return line("quality", "every layer is stored exactly");
  std::string text = fmt::format("SQNR {} on average, worst {} ({})", decibel_text(summary.mean_sqnr_db),
                                 decibel_text(summary.worst->sqnr_db), summary.worst->name);
  if (summary.exact != 0) text += fmt::format(", {} exact", summary.exact);
  return line("quality", text + ", of the stored bytes");
}

// Of layers with rows that were kept apart: these are judged by it, the others by SQNR.
std::string output_line(const Plan& plan, const ConvertReport& report) {
  const std::vector<LayerQuality> layers = qualities(report);  // the summary points into it
  const QualitySummary summary = summarize(layers, plan.options.quality_threshold);
  if (!summary.mean_output_error) return "";
  std::string text = fmt::format("error {} on rows that were kept apart", percent_text(*summary.mean_output_error));
  if (summary.worst_output != nullptr)
    text += fmt::format(", {} of plain rounding's, worst {} ({})", percent_text(*summary.output_vs_rounding),
                        percent_text(*output_vs_rounding(*summary.worst_output)), summary.worst_output->name);
  return line("outputs", text) + line("", fmt::format("{} judged by outputs, {} by SQNR", count_text(summary.judged_by_outputs, "layer"),
                                                      summary.layers - summary.judged_by_outputs));
}

}  // namespace

std::string decision_line(const Decision& decision) {
  std::string how;
  if (decision.action == Action::quantize)
    how = fmt::format("{} ({})", decision.label.summary, decision.quantizer->info().name);
  else if (decision.action == Action::cast)
    how = dtype_name(decision.outputs.front().dtype);
  std::string rule = decision.rule;
  if (!decision.reason.empty()) rule += fmt::format(": {}", decision.reason);
  if (!decision.merges.empty()) rule += "; merged";
  return fmt::format("{:<8}  {:<28}  {:>9}  {} {} [{}]", action_name(decision.action), how, bytes_text(bytes_of(decision.outputs)),
                     printable(decision.source.name), decision.source.shape_text(), printable(rule));
}

std::string plan_text(const Plan& plan) {
  std::string text;
  std::uint64_t before = 0;
  for (const Decision& decision : plan.decisions) {
    before += static_cast<std::uint64_t>(decision.source.bytes());
    if (decision.is_layer || decision.action != Action::copy) text += decision_line(decision) + "\n";
  }
  text += fmt::format("\n{}\n", plan.options.output.string());
  text += output_files_line(plan) + source_line(plan) + layer_lines(plan) + merge_lines(plan) + quantizer_line(plan) + size_line(before, plan.output.bytes());
  text += line(
      "", fmt::format("exactly {} bytes{}", plan.output.bytes(), plan.read_data ? "; layers were read to judge them (--heur)" : ""));
  text += reader_line(plan) + lines("note", counted(layout_notes(plan))) + lines("note", plan.remarks) + lines("warning", plan.warnings);
  return text;
}

std::string convert_summary(const Plan& plan, const ConvertReport& report) {
  std::vector<std::pair<std::string, std::string>> notes = layout_notes(plan);
  for (const LayerReport& layer : report.layers)
    for (const std::string& note : layer.notes) notes.emplace_back(layer.quality.name, note);
  std::string text = fmt::format("{}\n", plan.options.output.string());
  text += output_files_line(plan) + source_line(plan) + layer_lines(plan) + merge_lines(plan) + quantizer_line(plan);
  if (plan.options.seed < 0) text += line("seed", fmt::format("{} (drawn; also in the file)", plan.seed));
  if (peers() != nullptr) text += line("processes", fmt::format("{}", peers()->count()));
  text += size_line(report.bytes_read, report.bytes_written);
  text += line("time",
               fmt::format("{:.2f} s, {}/s, peak memory {}", report.seconds,
                           bytes_text(static_cast<std::uint64_t>(static_cast<double>(report.bytes_read) / std::max(report.seconds, 1e-9))),
                           bytes_text(peak_memory_bytes())));
  text += quality_line(plan, report) + output_line(plan, report) + reader_line(plan) + lines("note", counted(notes)) +
          lines("note", plan.remarks) + lines("warning", warnings(plan, report));
  return text;
}

}  // namespace qmill::app
