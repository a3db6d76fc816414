#include "io/output_set.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <fmt/format.h>

#include <cerrno>
#include <span>
#include <system_error>

namespace qmill {
namespace {

namespace fs = std::filesystem;

// Of all files at once: each would find enough for itself.
void require_space(const std::vector<NewFile>& files) {
  if (files.size() == 1) return;  // OutputFile looks itself
  std::uint64_t bytes = 0;
  for (const NewFile& file : files) {
    std::error_code ignored;
    if (!fs::exists(part_of(file.destination), ignored)) bytes += file.bytes;
  }
  std::error_code error;
  const fs::space_info space = fs::space(files.front().destination.parent_path(), error);
  if (error || space.available >= bytes) return;
  throw Error(ErrorKind::io, fmt::format("the {} files need {} bytes, their disk has {} left", files.size(), bytes, space.available),
              "free some space, or choose another disk with `output`")
      .in(fmt::format("'{}'", files.front().destination.string()));
}

}  // namespace

OutputSet::OutputSet(std::vector<NewFile> files, OutputFile::Part part) {
  require_space(files);
  for (NewFile& file : files) {
    std::error_code ignored;
    const bool is_missing = part == OutputFile::Part::existing && !fs::exists(part_of(file.destination), ignored);
    files_.push_back(std::make_unique<OutputFile>(std::move(file.destination), file.bytes, is_missing ? OutputFile::Part::fresh : part));
  }
}

void unpublish(const NewFile& file) {
  std::error_code error;
  const fs::path part = part_of(file.destination);
  if (!fs::is_regular_file(file.destination, error) || fs::file_size(file.destination, error) != file.bytes) return;
  std::string begin(file.begin.size(), '\0');
  FileReader(file.destination).read(0, std::as_writable_bytes(std::span(begin)));
  if (begin != file.begin) return;
  if (!fs::exists(part, error))
    fs::rename(file.destination, part, error);
  else if (!exchange_names(file.destination, part))
    error = std::error_code(errno, std::generic_category());
  if (error)
    throw Error(ErrorKind::io, fmt::format("cannot take back its name from a file of the run that ended early: {}", error.message()))
        .in(fmt::format("'{}'", file.destination.string()));
}

void OutputSet::sync() {
  for (const auto& file : files_) file->sync();
}

void OutputSet::publish(bool sync, bool overwrite) {
  if (sync) this->sync();
  try {
    for (const auto& file : files_) file->rename(overwrite, files_.size() > 1);
  } catch (...) {
    for (const auto& file : files_) file->take_back();
    throw;
  }
  for (const auto& file : files_) file->settle(sync);
}

void OutputSet::keep() {
  for (const auto& file : files_) file->keep();
}

}  // namespace qmill
