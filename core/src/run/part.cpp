#include "run/part.h"

#include "io/hash.h"

#include <qmill/error.h>

#include <fmt/format.h>

namespace qmill {
namespace {

namespace fs = std::filesystem;

fs::path destination_of(const ConvertOptions& options) { return fs::weakly_canonical(fs::absolute(options.output)); }

// Decoding takes seconds: it is not worth a second run's while.
bool is_resumable(const ConvertOptions& options) { return options.run.keep_part && !options.decode_to; }

OutputFile::Part kind_of(const ConvertOptions& options) {
  if (!is_resumable(options)) return OutputFile::Part::own;
  std::error_code ignored;
  const bool is_there = options.run.resume && fs::exists(part_of(destination_of(options)), ignored);
  return is_there ? OutputFile::Part::existing : OutputFile::Part::fresh;
}

// A run that ended so may be finished by another one: nothing is wrong with what it did.
bool is_worth_keeping(const Error& error) { return error.kind() == ErrorKind::cancelled || error.kind() == ErrorKind::io; }

}  // namespace

bool is_worked_on(const Decision& decision) {
  return decision.action == Action::quantize || decision.action == Action::cast || decision.action == Action::merge;
}

void check_part(const ConvertOptions& options) {
  const fs::path part = part_of(destination_of(options));
  std::error_code ignored;
  if (!is_resumable(options) || options.run.resume || !fs::exists(part, ignored)) return;
  if (is_in_use(part))
    throw Error(ErrorKind::io, "another run writes it now", "wait for that run, or choose another name with `output`")
        .in(fmt::format("'{}'", options.output.string()));
  throw Error(ErrorKind::usage, fmt::format("'{}' is left of a run that ended early", part.string()),
              "add `resume` to go on with it, or remove it to begin anew")
      .in(fmt::format("'{}'", options.output.string()));
}

Part::Part(const Plan& plan)
    : plan_(plan),
      is_resumable_(is_resumable(plan.options)),
      kind_(kind_of(plan.options)),
      journal_(journal_of(destination_of(plan.options)), is_resumable_ ? conversion_identity(plan) : std::string(), goes_on()),
      file_(destination_of(plan.options), plan.output.file_bytes, kind_) {}

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
  std::vector<std::byte> bytes;
  for (const auto& [name, hash] : entry.hashes) {
    const auto placed = plan_.output.tensors.find(name);
    if (placed == plan_.output.tensors.end()) return false;
    bytes.resize(static_cast<std::size_t>(placed->second.info.bytes()));
    file_.read(placed->second.offset, bytes);
    if (hash_text(bytes) != hash) return false;
  }
  return true;
}

void Part::note(const Decision& decision, const std::vector<StoredTensor>& tensors, const LayerReport* report) {
  if (!is_resumable_) return;
  JournalEntry entry;
  for (const StoredTensor& tensor : tensors)
    entry.hashes[tensor.name] = hash_text({static_cast<const std::byte*>(tensor.data.const_data_ptr()), tensor.data.nbytes()});
  if (report != nullptr) entry.report = *report;
  journal_.add(decision.source.name, entry);
  constexpr std::chrono::seconds kInterval(2);  // of work that a crash may cost
  if (std::chrono::steady_clock::now() - flushed_ >= kInterval) flush();
}

void Part::flush() {
  if (!journal_.has_pending()) return;
  if (plan_.options.run.sync) file_.sync();  // what the journal speaks of is on the disk first
  journal_.flush(plan_.options.run.sync);
  flushed_ = std::chrono::steady_clock::now();
}

void Part::publish() {
  file_.publish(plan_.options.run.sync, plan_.options.run.overwrite);
  if (is_resumable_) journal_.drop();
}

Error Part::leave(const Error& error) {
  if (!is_resumable_ || !is_worth_keeping(error) || journal_.count() == 0) return error;
  file_.keep();
  journal_.keep();
  std::string left = fmt::format("'{}' keeps what is finished: `resume` goes on with it, or remove it", file_.part().string());
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
