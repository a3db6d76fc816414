#include "source.h"

#include "folder_files.h"
#include "header.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <algorithm>

namespace safetensors {
namespace {

namespace fs = std::filesystem;
using qmill::Error;
using qmill::ErrorKind;
using qmill::FileReader;

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

std::string quoted(const fs::path& path) { return fmt::format("'{}'", path.string()); }

std::string read_text(const FileReader& reader, std::uint64_t offset, std::uint64_t bytes) {
  std::string text(bytes, '\0');
  reader.read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

Header read_header(const FileReader& reader) {
  try {
    const std::string first = read_text(reader, 0, std::min<std::uint64_t>(8, reader.size()));
    return parse_header(read_text(reader, 8, header_length(first, reader.size())), reader.size());
  } catch (Error& error) {
    throw error.in(quoted(reader.path()));
  }
}

class FileSource final : public qmill::TensorSource {
 public:
  explicit FileSource(const fs::path& file) : reader_(file) {
    qmill::require_no_lfs_pointer(reader_);
    Header header = read_header(reader_);
    for (Entry& entry : header.entries) {
      offsets_.push_back(entry.offset);
      tensors_.push_back(std::move(entry.info));
    }
    metadata_ = std::move(header.metadata);
  }

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<fs::path> files() const override { return {reader_.path()}; }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    reader_.read(offsets_[index] + begin, out);
  }

  std::optional<qmill::Extent> extent(std::size_t index) const override {
    return qmill::Extent{reader_.path(), offsets_[index], static_cast<std::uint64_t>(tensors_[index].bytes())};
  }

  void prefetch(std::size_t index) const override {
    reader_.prefetch(offsets_[index], static_cast<std::uint64_t>(tensors_[index].bytes()));
  }

 private:
  FileReader reader_;
  std::vector<qmill::TensorInfo> tensors_;
  std::vector<std::uint64_t> offsets_;  // in the file
  std::map<std::string, std::string> metadata_;
};

std::unique_ptr<qmill::TensorSource> open_one(const fs::path& file) { return std::make_unique<FileSource>(file); }

}  // namespace

bool is_index(const fs::path& path) { return path.filename().string().ends_with(kIndexSuffix); }

std::unique_ptr<qmill::TensorSource> open_file(const fs::path& file) { return qmill::open_whole_model(file, open_one); }

std::unique_ptr<qmill::TensorSource> open_index(const fs::path& index) { return qmill::open_indexed(index, open_one); }

std::unique_ptr<qmill::TensorSource> open_folder(const fs::path& folder) {
  std::vector<fs::path> files;
  std::vector<fs::path> indexes;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    // Archives of one system hold files of a few bytes for another: "._model.safetensors".
    if (entry.path().filename().string().starts_with(".")) continue;
    if (is_index(entry.path()))
      indexes.push_back(entry.path());
    else if (entry.path().extension() == ".safetensors")
      files.push_back(entry.path());
  }
  if (indexes.size() > 1)
    throw Error(ErrorKind::input, fmt::format("{} holds {} indexes, expected one", quoted(folder), indexes.size()), "name one of them");
  if (indexes.size() == 1) return open_index(indexes.front());
  if (files.empty()) throw Error(ErrorKind::input, fmt::format("{} holds no .safetensors file", quoted(folder)));
  try {
    return qmill::open_shards(one_model(files), nullptr, open_one);
  } catch (Error& error) {
    throw error.in(quoted(folder));
  }
}

}  // namespace safetensors
