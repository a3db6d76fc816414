// The files of one output: a model, or its shards and their index. They get their names together, or none does.
#pragma once

#include "io/output_file.h"

#include <string>
#include <vector>

namespace qmill {

struct NewFile {
  std::filesystem::path destination;
  std::uint64_t bytes = 0;
  std::string begin;  // its first bytes
};

// A file that publish() gave its name is a part again, and what it replaced has that name; another file stays. Throws Error(io).
void unpublish(const NewFile& file);

// What OutputFile says of threads is true of each file.
class OutputSet {
 public:
  // Reserves the space of all. Part::existing: for those whose part is there; the others begin anew. Throws what OutputFile throws.
  OutputSet(std::vector<NewFile> files, OutputFile::Part part);

  OutputFile& operator[](std::size_t file) { return *files_[file]; }
  const OutputFile& operator[](std::size_t file) const { return *files_[file]; }
  std::size_t size() const { return files_.size(); }

  // What was written so far is on the disk.
  void sync();

  // Gives all files their names, the last one last: it is what readers look for. Throws what OutputFile::publish() throws, and then nothing has
  // changed. Where the system cannot exchange names, files that were replaced are lost all the same.
  void publish(bool sync, bool overwrite);

  // The destructor leaves the parts where they are.
  void keep();

 private:
  std::vector<std::unique_ptr<OutputFile>> files_;
};

}  // namespace qmill
