#include "plan/reader_support.h"

#include "model/layers.h"
#include "plan/words.h"
#include "readers/modules.h"
#include "readers/reader_formats.h"

#include <qmill/names.h>

#include <fmt/format.h>

namespace qmill {
namespace {

ModelParts parts_of(const TensorSource& source, const std::optional<Architecture>& architecture) {
  return architecture ? ModelParts(source.tensors(), architecture->name, architecture->prefix) : ModelParts(source.tensors(), "", "");
}

std::string kind_text(ModuleKind kind) { return kind == ModuleKind::embedding ? "embedding tables" : "parameters without a module"; }

}  // namespace

ReaderSupport::ReaderSupport(const TensorSource& source, const std::optional<Architecture>& architecture, TargetReader reader)
    : reader_(reader), is_renamed_(architecture && architecture->renamed_by_readers), parts_(parts_of(source, architecture)) {}

std::string ReaderSupport::keeps(const Decision& decision) {
  // Floats need no marker, and a format that mainline ComfyUI does not know is for another reader.
  const ReaderFormat* format = find_reader_format(decision.label.name);
  if (decision.label.marker.empty() || format == nullptr) return {};
  const ModelPart& part = parts_.of(decision.source.name);
  const ModuleKind kind = module_kind(layer_base(decision.source.name));
  std::string what, why, unread;
  if (part.loads_quantized == false && !is_renamed_) {
    what = part.name;
    why = part.because;
    unread = fmt::format("quantized layers of {}", part.name);
  } else if (!format->is_read_in(kind)) {
    what = kind_text(kind);
    why = fmt::format("ComfyUI reads no {} there", decision.label.name);
    unread = fmt::format("{} in {}", decision.label.name, what);
  } else if (!part.loads_quantized && not_judged_.empty()) {
    not_judged_ = fmt::format("{}: {}", part.name, part.because);
  }
  if (what.empty()) return {};
  std::string reason = fmt::format("{}: {}", what, why);
  ++unread_[reason];
  if (reader_ == TargetReader::comfyui) return reason;
  if (not_loaded_.empty()) not_loaded_ = std::move(unread);
  return {};
}

bool ReaderSupport::takes_table(const TensorInfo& tensor) {
  const std::string base = layer_base(tensor.name);
  if (!is_layer(tensor) || module_kind(base) != ModuleKind::embedding) return false;
  if (!is_token_table(base)) {
    ++tables_left_["of positions or kinds"];
    return false;
  }
  const ModelPart& part = parts_.of(tensor.name);
  if (reader_ == TargetReader::any || part.loads_quantized == true) return true;
  ++tables_left_[fmt::format("in {}, as {} (`target any` does not ask that)", part.name, part.because)];
  return false;
}

std::string ReaderSupport::tables_left() const {
  std::string list;
  std::size_t total = 0;
  for (const auto& [what, count] : tables_left_) {
    list += fmt::format("{}{} {}", list.empty() ? "" : "; ", count, what);
    total += count;
  }
  return list.empty() ? "" : fmt::format("`embeddings` leaves {} to the other rules: {}", counted(total, "table"), list);
}

std::vector<std::string> ReaderSupport::warnings() const {
  std::vector<std::string> lines;
  for (const auto& [reason, count] : unread_)
    lines.push_back(reader_ == TargetReader::comfyui ? fmt::format("{} {} kept, in {} (`target any` quantizes them)",
                                                                   counted(count, "layer"), count == 1 ? "is" : "are", reason)
                                                     : fmt::format("{} {} quantized, in {} (`target comfyui` keeps them)",
                                                                   counted(count, "layer"), count == 1 ? "is" : "are", reason));
  return lines;
}

}  // namespace qmill
