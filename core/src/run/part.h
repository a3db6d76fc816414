// The files of the output while they grow, and what of them is finished: for the run that fills it, and for one that goes on after it.
#pragma once

#include "io/output_set.h"
#include "run/journal.h"

#include <chrono>
#include <optional>
#include <vector>

namespace qmill {

// Throws Error(usage) for what is left of another run, Error(io) for a part that a run writes now. What `options` say of parts counts.
// `files`: of the output, as far as they are known; `is_shared`: several processes make it.
void check_part(const ConvertOptions& options, const std::vector<std::filesystem::path>& files, bool is_shared);

// Whether a run with these options takes back files that another one has published before it ended.
bool goes_on_publishing(const ConvertOptions& options);

class Part {
 public:
  // Makes the part, or opens the one that is there if the run goes on with it; `follows`: the one of rank 0, for a run that several processes
  // share. Throws what OutputFile and Journal throw.
  Part(const Plan& plan, bool is_shared, bool follows);

  // The first bytes of each file; of the index, all.
  void write_headers();
  // Of an output's tensor. [threads as OutputFile says]
  void write(const std::string& name, std::span<const std::byte> bytes);
  void copy(const std::string& name, const Extent& from);

  // By index of the plan's decisions: whether an earlier run has stored its tensors, and they are there as it did. Reads them.
  std::vector<bool> finished() const;
  // Of a decision that is finished: the report of a layer.
  std::optional<LayerReport> report_of(const Decision& decision) const;
  bool goes_on() const { return kind_ == OutputFile::Part::existing; }

  // The tensors of a decision that is worked on are stored. [one thread]
  void note(const Decision& decision, const JournalEntry& entry);

  // What was written so far is on the disk, if the run asks for that.
  void sync();

  void publish();

  // The error of a run that ended early, with what it leaves for another one: what is finished, unless another run would meet the same
  // error, or nothing is. The destructor removes the rest.
  Error leave(const Error& error);

  bool is_resumable() const { return is_resumable_; }

 private:
  bool is_intact(const Decision& decision, const JournalEntry& entry) const;
  void flush();

  const Plan& plan_;
  const bool is_resumable_;
  const OutputFile::Part kind_;
  Journal journal_;  // unused by a process that follows
  OutputSet files_;  // of the plan, then the index if there is one
  std::chrono::steady_clock::time_point flushed_ = std::chrono::steady_clock::now();
};

// As JournalEntry has them.
std::map<std::string, std::string> hashes_of(const std::vector<StoredTensor>& tensors);

// Read as a tensor of its own and changed: a bias that is corrected goes with its layer.
bool is_worked_on(const Decision& decision);

}  // namespace qmill
