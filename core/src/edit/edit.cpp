#include <qmill/core/edit.h>

#include "io/output_file.h"
#include "host/guard.h"
#include "io/destination.h"
#include <qmill/core/output_plan.h>
#include "io/regex.h"
#include "verify/layer_rules.h"
#include "readers/reader_formats.h"

#include <qmill/error.h>
#include <qmill/names.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace qmill {
namespace {

namespace fs = std::filesystem;

class Editor {
 public:
  Editor(const Host& host, const TensorSource& source, const MarkerEdit& edit)
      : host_(host), source_(source), edit_(edit), markers_(raw_markers(source)), header_(header_entry(source)), tensors_(source) {
    if (!edit.filter.empty()) filter_.emplace(edit.filter);
    if (!edit.add.empty()) added_ = parse_json(parse_added_keys(edit.add));
  }

  // Decides everything; what changes is in texts() and metadata().
  void apply() {
    for (const auto& [base, marker] : markers_) change_marker(base, marker);
    change_header_only();
    require_matches();
    warn_of_absent_keys();
    new_metadata_ = source_.metadata();
    write_header_entry();
    if (report_.changed.empty() && new_metadata_ == source_.metadata())
      throw Error(ErrorKind::input, "nothing would change: every marker says this already", "");
  }

  EditReport write(const std::atomic<bool>* cancel) {
    std::vector<TensorInfo> tensors = source_.tensors();
    for (TensorInfo& tensor : tensors)
      if (const auto text = texts_.find(tensor.name); text != texts_.end()) tensor.shape = {static_cast<std::int64_t>(text->second.size())};
    const OutputPlan plan = plan_output(tensors, new_metadata_);
    OutputFile file(fs::weakly_canonical(fs::absolute(edit_.output)), plan.bytes());
    file.write(0, std::as_bytes(std::span(plan.files.front().header)));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (cancel != nullptr && *cancel) throw Error(ErrorKind::cancelled, "interrupted");
      const std::uint64_t offset = plan.tensors.at(tensors[i].name).offset;
      const auto text = texts_.find(tensors[i].name);
      if (text != texts_.end())
        file.write(offset, std::as_bytes(std::span(text->second)));
      else
        copy(file, i, offset);
    }
    file.publish(edit_.sync, edit_.overwrite);
    report_.bytes_written = plan.bytes();
    return std::move(report_);
  }

 private:
  bool selects(const std::string& base) const { return !filter_ || filter_->search(base); }

  void warn(std::string text) { report_.warnings.push_back(std::move(text)); }

  MarkerJson edited(MarkerJson marker) {
    for (const std::string& key : edit_.remove)
      if (marker.erase(key) != 0) removed_.insert(key);
    if (added_.is_object())
      for (const auto& [key, value] : added_.items()) marker[key] = value;
    return marker;
  }

  void change_marker(const std::string& base, const RawMarker& marker) {
    if (!selects(base)) return;
    if (!marker.json.is_object()) return warn(fmt::format("the marker of '{}' is kept as it is: {}", base, marker.problem));
    ++report_.selected;
    const std::string entry = header_name(header_, base);
    const bool differs = !entry.empty() && nlohmann::json(header_.json["layers"][entry]) != nlohmann::json(marker.json);
    const MarkerJson changed = edited(marker.json);
    // As sets of keys: to write one again in its place is no change.
    const bool is_changed = nlohmann::json(changed) != nlohmann::json(marker.json);
    if (differs && is_changed)
      warn(fmt::format("the header said something else of '{}' than its marker: it now says what the marker does", base));
    if (differs && !is_changed && !edit_.rebuild_header)
      warn(
          fmt::format("the header says something else of '{}' than its marker, and readers believe the header; `save_quant_metadata` "
                      "writes it anew",
                      base));
    if (!is_changed) return;
    check_changed(base, marker.json, changed);
    texts_[base + std::string(kMarkerSuffix)] = changed.dump();
    report_.changed.push_back(base);
    if (!entry.empty()) header_.json["layers"][entry] = changed;
  }

  // Layers that only the header marks.
  void change_header_only() {
    if (header_.exists && !header_.problem.empty() && !edit_.rebuild_header)
      warn(fmt::format("the header's '{}' is kept as it is: {}", kHeaderKey, header_.problem));
    if (!header_.is_usable()) return;
    std::set<std::string> of_markers;
    for (const auto& [base, marker] : markers_)
      if (std::string entry = header_name(header_, base); !entry.empty()) of_markers.insert(std::move(entry));
    for (auto& [key, entry] : header_.json["layers"].items()) {
      const std::string base = tensors_.layer_of(key);
      if (of_markers.contains(key) || !selects(base)) continue;
      if (!entry.is_object()) {
        warn(fmt::format("the header's entry of '{}' is kept as it is: it is no object", base));
        continue;
      }
      ++report_.selected;
      const MarkerJson changed = edited(entry);
      if (nlohmann::json(changed) == nlohmann::json(entry)) continue;
      check_changed(base, entry, changed);
      entry = changed;
      report_.changed.push_back(base);
    }
  }

  std::optional<Layout> recognised(const std::string& base, const MarkerJson& marker) const {
    StoredLayerInfo layer;
    layer.base = base;
    layer.marker = marker.dump();
    const LayerTensors::BySuffix& tensors = tensors_.of(base);
    const auto weight = tensors.find("weight");
    if (weight == tensors.end()) return std::nullopt;
    layer.weight = *weight->second;
    for (const auto& [suffix, tensor] : tensors)
      if (tensor != weight->second) layer.others.push_back(*tensor);
    for (const StoredFormat* format : host_.formats())
      if (auto layout = guard(format->info().name, "recognise", layer.weight.name, [&] { return format->recognise(layer); })) return layout;
    return std::nullopt;
  }

  // The first error of verification that the layer has with the one marker and not with the other; what was wrong before is no reason to
  // refuse. Formats that readers do not know are judged apart.
  std::optional<Finding> broken_rule(const std::string& base, const MarkerJson& before, const MarkerJson& after) const {
    const auto errors = [&](const MarkerJson& marker) {
      Findings findings;
      check_layer(marked_layer(tensors_, base, marker), findings);
      std::vector<Finding> found = findings.take();
      std::erase_if(found, [](const Finding& finding) { return !finding.is_error() || finding.rule == "unknown-format"; });
      return found;
    };
    // Values of several keys break one rule.
    const auto is_same = [](const Finding& a, const Finding& b) {
      return a.rule == b.rule && (a.rule != "marker-value" || a.text == b.text);
    };
    const std::vector<Finding> known = errors(before);
    for (Finding& finding : errors(after))
      if (std::none_of(known.begin(), known.end(), [&](const Finding& other) { return is_same(finding, other); })) return finding;
    return std::nullopt;
  }

  // Throws Error(usage) for a marker that readers would stop at.
  void check_changed(const std::string& base, const MarkerJson& before, const MarkerJson& after) {
    const auto refuse = [&](std::string text, std::string advice = "") {
      return Error(ErrorKind::usage, std::move(text), std::move(advice)).in(fmt::format("layer '{}'", base));
    };
    const auto format = after.find("format");
    if (format == after.end())
      throw refuse("readers cannot load a marker without 'format'", "leave 'format' out of the keys to remove, or add another");
    if (!format->is_string()) throw refuse(fmt::format("'format' is {}, expected a text", excerpt(*format)));
    const auto name = format->get<std::string>();
    std::optional<Layout> old_layout, new_layout;
    try {
      old_layout = recognised(base, before);
    } catch (const Error&) {  // it was wrong before: nothing that this edit must keep
    }
    try {
      new_layout = recognised(base, after);
    } catch (const Error& error) {
      throw refuse(fmt::format("the new keys contradict its tensors: {}", error.message()));
    }
    const bool is_readers = find_reader_format(name) != nullptr;
    if (!is_readers && !new_layout) throw refuse(unknown_name_message("format", name, reader_format_names()));
    if (!is_readers) warn_once(fmt::format("mainline ComfyUI does not know the format '{}'", name));
    if (old_layout && !new_layout)
      throw refuse(fmt::format("its tensors are not those of format '{}'", name), "the codes stay as they are, so must their format");
    if (const std::optional<Finding> broken = broken_rule(base, before, after))
      throw refuse(fmt::format("readers would not load it: {}", broken->text), "docs/commands.md (verify) lists their rules");
    if (!old_layout) return;
    if (old_layout->rotation_group != new_layout->rotation_group)
      warn_once(
          fmt::format("layers such as '{}' were stored {} and are now read {}: their weights come out different, as edit changes no codes",
                      base, rotation(*old_layout), rotation(*new_layout)));
  }

  static std::string rotation(const Layout& layout) {
    return layout.rotation_group == 0 ? "unrotated" : fmt::format("rotated in groups of {}", layout.rotation_group);
  }

  void warn_once(std::string text) {
    // The layer that is named is the first one.
    const std::string kind = text.substr(0, text.find('\''));
    if (warned_.insert(kind).second) warn(std::move(text));
  }

  void require_matches() const {
    if (report_.selected != 0) return;
    if (markers_.empty() && !header_.is_usable())
      throw Error(ErrorKind::input, "it has no quantization markers", "qmill inspect shows what it holds");
    if (filter_)
      throw Error(ErrorKind::input, fmt::format("no marker matches '{}'", edit_.filter), "qmill inspect --json lists the layers");
    throw Error(ErrorKind::input, "none of its markers can be read", "qmill verify says what is wrong with them");
  }

  void warn_of_absent_keys() {
    for (const std::string& key : edit_.remove)
      if (!removed_.contains(key)) warn(fmt::format("no marker has the key '{}'", key));
  }

  void write_header_entry() {
    if (edit_.rebuild_header) {
      MarkerJson layers = header_.is_usable() ? header_.json["layers"] : MarkerJson::object();
      for (const auto& [base, marker] : markers_) {
        if (!marker.json.is_object()) continue;
        const std::string entry = header_name(header_, base);
        const auto text = texts_.find(base + std::string(kMarkerSuffix));
        layers[entry.empty() ? base : entry] = text == texts_.end() ? marker.json : MarkerJson::parse(text->second);
      }
      if (!header_.is_usable()) header_.json = {{"format_version", "1.0"}};
      header_.json["layers"] = std::move(layers);
      new_metadata_[kHeaderKey] = header_.json.dump();
    } else if (header_.is_usable() && !report_.changed.empty()) {
      new_metadata_[kHeaderKey] = header_.json.dump();
    }
  }

  void copy(OutputFile& file, std::size_t index, std::uint64_t offset) const {
    if (const std::optional<Extent> extent = source_.extent(index)) return file.copy(*extent, offset);
    constexpr std::uint64_t kPart = 8 << 20;
    const auto bytes = static_cast<std::uint64_t>(source_.tensors()[index].bytes());
    std::vector<std::byte> buffer;
    for (std::uint64_t begin = 0; begin < bytes; begin += kPart) {
      buffer.resize(static_cast<std::size_t>(std::min(kPart, bytes - begin)));
      source_.read_part(index, begin, buffer);
      file.write(offset + begin, buffer);
    }
  }

  const Host& host_;
  const TensorSource& source_;
  const MarkerEdit& edit_;
  const std::map<std::string, RawMarker> markers_;
  HeaderEntry header_;
  const LayerTensors tensors_;
  std::optional<Regex> filter_;
  MarkerJson added_;
  std::set<std::string> removed_;             // keys that some marker had
  std::map<std::string, std::string> texts_;  // of marker tensors that change
  std::map<std::string, std::string> new_metadata_;
  std::set<std::string> warned_;
  EditReport report_;
};

void require_a_change(const MarkerEdit& edit) {
  if (edit.remove.empty() && edit.add.empty() && !edit.rebuild_header)
    throw Error(ErrorKind::usage, "no change is given", "give `remove_keys`, `add_keys` or `save_quant_metadata`");
  for (const std::string& key : edit.remove)
    if (key.empty()) throw Error(ErrorKind::usage, "a key to remove is empty", "separate keys by single commas");
}

}  // namespace

fs::path default_edited_output(const fs::path& input) {
  fs::path path = input.has_filename() ? input : input.parent_path();
  std::string stem = path.filename().string();
  for (const std::string_view suffix : {".safetensors.index.json", ".safetensors"})
    if (stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  return path.parent_path() / (stem + "_edited.safetensors");
}

EditReport edit_markers(const Host& host, const MarkerEdit& edit, const std::atomic<bool>* cancel) {
  require_a_change(edit);
  const std::unique_ptr<TensorSource> source = host.open(edit.input);
  require_file_name(edit.output);
  require_safetensors_name(edit.output);
  std::vector<fs::path> inputs = source->files();
  inputs.push_back(edit.input);
  require_replaceable(edit.output, inputs, edit.overwrite);
  Editor editor(host, *source, edit);
  try {
    editor.apply();
  } catch (Error& error) {
    throw error.in(fmt::format("'{}'", edit.input.string()));
  }
  return editor.write(cancel);
}

}  // namespace qmill
