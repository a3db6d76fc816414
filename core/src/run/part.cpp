#include "run/part.h"

#include "io/destination.h"
#include "io/hash.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

fs::path resolved(const fs::path& file) { return fs::weakly_canonical(fs::absolute(file)); }
fs::path journal_path(const ConvertOptions& options) { return journal_of(resolved(options.output)); }

// Decoding takes seconds: it is not worth a second run's while.
bool is_resumable(const ConvertOptions& options) { return options.run.keep_part && !options.decode_to; }

std::string index_text(const Plan& plan) {
  std::vector<std::string> names;
  for (const fs::path& file : plan.output_files()) names.push_back(file.filename().string());
  return shard_index_text(plan.output, names);
}

std::vector<NewFile> new_files(const Plan& plan) {
  std::vector<NewFile> files;
  for (const fs::path& file : plan.output_files()) {
    if (files.size() < plan.output.files.size()) {
      const PlannedFile& planned = plan.output.files[files.size()];
      files.push_back({resolved(file), planned.bytes, planned.header});
    } else {
      const std::string text = index_text(plan);
      files.push_back({resolved(file), text.size(), text});
    }
  }
  return files;
}

// Several processes find a part by its name.
OutputFile::Part kind_of(const Plan& plan, bool is_shared, bool follows) {
  if (follows) return OutputFile::Part::shared;
  if (!is_resumable(plan.options)) return is_shared ? OutputFile::Part::fresh : OutputFile::Part::own;
  bool is_there = goes_on_publishing(plan.options);
  std::error_code ignored;
  if (plan.options.run.resume)
    for (const fs::path& file : plan.output_files()) is_there = is_there || fs::exists(part_of(resolved(file)), ignored);
  return is_there ? OutputFile::Part::existing : OutputFile::Part::fresh;
}

// Files that a run has published before it ended are parts again.
std::vector<NewFile> unpublished(std::vector<NewFile> files, const Plan& plan, bool was_publishing) {
  for (const NewFile& file : files) {
    if (!was_publishing) break;
    unpublish(file);
    std::error_code ignored;
    if (fs::exists(file.destination, ignored) && !plan.options.run.overwrite)
      throw Error(ErrorKind::usage, "the file exists already", "add `overwrite` to replace it, or choose another name")
          .in(fmt::format("'{}'", file.destination.string()));
  }
  return files;
}

// A part that is there, of any file of the output in any number of shards. Empty: there is none.
fs::path any_part(const fs::path& output) {
  const std::string stem = output.stem().string();
  std::error_code error;
  for (fs::directory_iterator entry(output.parent_path(), error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(stem) && name.ends_with(".qmill-part")) return entry->path();
  }
  return {};
}

// A run that ended so may be finished by another one: nothing is wrong with what it did.
bool is_worth_keeping(const Error& error) { return error.kind() == ErrorKind::cancelled || error.kind() == ErrorKind::io; }

}  // namespace

bool is_worked_on(const Decision& decision) {
  return decision.action == Action::quantize || decision.action == Action::cast || decision.action == Action::merge;
}

void check_part(const ConvertOptions& options, const std::vector<fs::path>& files, bool is_shared) {
  if (!(is_resumable(options) || is_shared) || options.run.resume) return;
  const auto refuse = [&](const fs::path& part) {
    if (is_in_use(part))
      throw Error(ErrorKind::io, "another run writes it now", "wait for that run, or choose another name with `output`")
          .in(fmt::format("'{}'", options.output.string()));
    throw Error(ErrorKind::usage, fmt::format("'{}' is left of a run that ended early", part.string()),
                "add `resume` to go on with it, or remove it and those beside it to begin anew")
        .in(fmt::format("'{}'", options.output.string()));
  };
  std::error_code ignored;
  for (const fs::path& file : files)
    if (fs::exists(part_of(resolved(file)), ignored)) refuse(part_of(resolved(file)));
  // The journal is the same for any number of shards: it is not to be lost.
  if (!fs::exists(journal_path(options), ignored)) return;
  if (const fs::path part = any_part(resolved(options.output)); !part.empty()) refuse(part);
}

bool goes_on_publishing(const ConvertOptions& options) {
  return is_resumable(options) && options.run.resume && was_publishing(journal_path(options));
}

Part::Part(const Plan& plan, bool is_shared, bool follows)
    : plan_(plan),
      is_resumable_(!follows && qmill::is_resumable(plan.options)),
      kind_(kind_of(plan, is_shared, follows)),
      journal_(journal_path(plan.options), is_resumable_ ? conversion_identity(plan) : std::string(),
               is_resumable_ && plan.options.run.resume),
      files_(unpublished(new_files(plan), plan, journal_.was_publishing()), kind_) {}

void Part::write_headers() {
  const std::vector<NewFile> files = new_files(plan_);
  for (std::size_t i = 0; i < files.size(); ++i) files_[i].write(0, std::as_bytes(std::span(files[i].begin)));
}

void Part::write(const std::string& name, std::span<const std::byte> bytes) {
  const PlacedTensor& place = plan_.output.tensors.at(name);
  files_[place.file].write(place.offset, bytes);
}

void Part::copy(const std::string& name, const Extent& from) {
  const PlacedTensor& place = plan_.output.tensors.at(name);
  files_[place.file].copy(from, place.offset);
}

std::vector<bool> Part::finished() const {
  std::vector<bool> finished;
  for (const Decision& decision : plan_.decisions) {
    const auto entry = journal_.found().find(decision.source.name);
    finished.push_back(entry != journal_.found().end() && is_intact(decision, entry->second));
  }
  return finished;
}

std::optional<LayerReport> Part::report_of(const Decision& decision) const { return journal_.found().at(decision.source.name).report; }

bool Part::is_intact(const Decision& decision, const JournalEntry& entry) const {
  const std::size_t expected = decision.outputs.size() + (decision.bias ? plan_.decisions[*decision.bias].outputs.size() : 0);
  if (!is_worked_on(decision) || entry.hashes.size() != expected || entry.report.has_value() != (decision.action == Action::quantize))
    return false;
  if (entry.report && plan_.options.run.measures && !entry.report->quality.is_measured) return false;
  std::vector<std::byte> bytes;
  for (const auto& [name, hash] : entry.hashes) {
    const auto placed = plan_.output.tensors.find(name);
    if (placed == plan_.output.tensors.end()) return false;
    bytes.resize(static_cast<std::size_t>(placed->second.info.bytes()));
    files_[placed->second.file].read(placed->second.offset, bytes);
    if (hash_text(bytes) != hash) return false;
  }
  return true;
}

std::map<std::string, std::string> hashes_of(const std::vector<StoredTensor>& tensors) {
  std::map<std::string, std::string> hashes;
  for (const StoredTensor& tensor : tensors)
    hashes[tensor.name] = hash_text({static_cast<const std::byte*>(tensor.data.const_data_ptr()), tensor.data.nbytes()});
  return hashes;
}

void Part::note(const Decision& decision, const JournalEntry& entry) {
  if (!is_resumable_) return;
  journal_.add(decision.source.name, entry);
  constexpr std::chrono::seconds kInterval(2);  // of work that a crash may cost
  if (std::chrono::steady_clock::now() - flushed_ >= kInterval) flush();
}

void Part::sync() {
  if (plan_.options.run.sync) files_.sync();
}

void Part::flush() {
  if (!journal_.has_pending()) return;
  sync();  // what the journal speaks of is on the disk first
  journal_.flush(plan_.options.run.sync);
  flushed_ = std::chrono::steady_clock::now();
}

void Part::publish() {
  if (is_resumable_ && files_.size() > 1) journal_.note_publishing(plan_.options.run.sync);
  files_.publish(plan_.options.run.sync, plan_.options.run.overwrite);
  if (is_resumable_) journal_.drop();
}

Error Part::leave(const Error& error) {
  if (!is_resumable_ || !is_worth_keeping(error) || journal_.count() == 0) return error;
  files_.keep();
  journal_.keep();
  std::string left = fmt::format("'{}' {}keeps what is finished: `resume` goes on with it, or remove it", files_[0].part().string(),
                                 files_.size() > 1 ? fmt::format("(one of {} files) ", files_.size()) : std::string());
  try {
    flush();
  } catch (const Error& failed) {
    left += fmt::format(" (what was finished last is lost: {})", failed.what());
  }
  Error told(error.kind(), error.message(), error.advice().empty() ? left : fmt::format("{}; {}", error.advice(), left));
  // Where it was when it was interrupted is of no interest.
  if (error.kind() != ErrorKind::cancelled)
    for (const std::string& context : error.contexts()) told.in(context);
  return told;
}

}  // namespace qmill
