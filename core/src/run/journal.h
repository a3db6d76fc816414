// What of an output is finished, in a file beside its part: a run that ended early goes on from there.
//
// A line of JSON per entry, in the order in which they were finished. The first says which conversion it is. A line that was cut short by a
// crash counts as not written.
#pragma once

#include "io/append_file.h"

#include <qmill/core/convert.h>

#include <nlohmann/json_fwd.hpp>

#include <map>
#include <memory>
#include <string>

namespace qmill {

// The tensors of one decision of the plan: a layer with its bias, or a tensor that was cast or merged.
struct JournalEntry {
  std::map<std::string, std::string> hashes;  // of the stored bytes (hash_text), by tensor
  std::optional<LayerReport> report;          // of a layer
};

nlohmann::ordered_json entry_json(const JournalEntry& entry);
// Throws nlohmann::json::exception for other JSON.
JournalEntry parse_entry(const nlohmann::ordered_json& json);

using JournalEntries = std::map<std::string, JournalEntry>;  // by name of the source's tensor

// "model.safetensors.qmill-journal"
std::filesystem::path journal_of(const std::filesystem::path& destination);

// Whether a run of this output ended while its files got their names. Throws Error(io) for a journal that cannot be read.
bool was_publishing(const std::filesystem::path& journal);

// What is the same in all runs of one conversion: the plan's digest, and size and time of each file that is read.
std::string conversion_identity(const Plan& plan);

// The name of the first file that is another one for one of two identities; empty: their plans differ.
std::string differing_file(const std::string& found, const std::string& wanted);

class Journal {
 public:
  // Goes on with the journal that is there if `resume`, else begins anew. Throws Error(usage) that says what differs when the one that is
  // there is of another conversion; Error(input) when it is none.
  Journal(std::filesystem::path file, std::string identity, bool resume);
  // Removes what it wrote, unless that is kept. What was found is kept, until it is dropped.
  ~Journal();

  const JournalEntries& found() const { return found_; }

  // Kept in memory until flush().
  void add(const std::string& name, const JournalEntry& entry);
  bool has_pending() const { return !pending_.empty(); }
  // `sync`: to the disk. Call it after what the entries speak of is there. Throws Error(io).
  void flush(bool sync);

  // The files get their names now: a run that ended here has published some of them.
  void note_publishing(bool sync);
  bool was_publishing() const { return was_publishing_; }

  std::size_t count() const { return count_; }  // of entries, found and added
  void keep() { kept_ = true; }
  void drop() { kept_ = false, dropped_ = true; }

 private:
  void read();

  const std::filesystem::path path_;
  const std::string identity_;
  JournalEntries found_;
  std::size_t count_ = 0;
  std::uint64_t read_bytes_ = 0;  // of whole lines
  std::string pending_;
  std::unique_ptr<AppendFile> file_;
  bool kept_ = false, dropped_ = false, was_publishing_ = false;
};

}  // namespace qmill
