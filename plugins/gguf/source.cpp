#include "source.h"

#include "header.h"
#include "split.h"
#include "true_shapes.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/source_details.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace gguf {
namespace {

namespace fs = std::filesystem;
using qmill::Error;
using qmill::FileReader;

std::string quoted(const fs::path& path) { return fmt::format("'{}'", path.string()); }

template <class Function>
auto in_file(const fs::path& path, Function&& function) {
  try {
    return function();
  } catch (Error& error) {
    throw error.in(quoted(path));
  }
}

struct File {
  std::unique_ptr<FileReader> reader;
  Header header;
};

File open_file(const fs::path& path) {
  File file{std::make_unique<FileReader>(path), {}};
  const auto read = [&](std::uint64_t offset, std::span<std::byte> out) { file.reader->read(offset, out); };
  qmill::require_no_lfs_pointer(*file.reader);
  file.header = in_file(path, [&] { return parse_header(file.reader->size(), read); });
  return file;
}

std::vector<File> open_parts(const fs::path& path) {
  std::vector<File> files;
  files.push_back(open_file(path));
  const KeyValues known = files.front().header.keys;
  const std::vector<fs::path> paths = in_file(path, [&] { return part_files(path, known.split); });
  if (paths.size() == 1) return files;
  File named = std::move(files.front());
  files.clear();
  for (std::size_t i = 0; i < paths.size(); ++i) {
    files.push_back(i == *known.split.number ? std::move(named) : open_file(paths[i]));
    in_file(paths[i], [&] { require_part(files.back().header.keys, i, known); });
  }
  return files;
}

class Source final : public qmill::TensorSource, public qmill::SourceDetails {
 public:
  explicit Source(const fs::path& path) {
    std::vector<File> files = open_parts(path);
    std::map<std::string, Shape> original_shapes;
    std::optional<std::uint64_t> announced;  // by all parts
    for (File& file : files) {
      readers_.push_back(std::move(file.reader));
      metadata_.merge(file.header.keys.metadata);
      original_shapes.merge(file.header.keys.original_shapes);
      if (!announced && file.header.keys.split.count.value_or(0) != 0) announced = file.header.keys.split.tensors;
      for (Entry& entry : file.header.entries) {
        entries_.push_back(std::move(entry));
        file_of_.push_back(readers_.size() - 1);
      }
    }
    require_unique_names();
    in_file(path, [&] {
      if (announced && *announced != entries_.size())
        reject(fmt::format("its split.tensors.count is {}, {} {} {}", *announced,
                           readers_.size() == 1 ? "it has" : fmt::format("all {} parts together have", readers_.size()), entries_.size(),
                           entries_.size() == 1 ? "tensor" : "tensors"),
               "the model is incomplete; get all of its files again");
    });
    for (std::size_t i = 0; i < entries_.size(); ++i) in_file(reader(i).path(), [&] { restore_folded(entries_[i], original_shapes); });
    linear_ = restore_linear(entries_, metadata_);
    for (const Entry& entry : entries_) tensors_.push_back(entry.info);
  }

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

  std::vector<fs::path> files() const override {
    std::vector<fs::path> files;
    for (const auto& reader : readers_) files.push_back(reader->path());
    return files;
  }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    const Entry& entry = entries_[index];
    if (entry.type->decode == nullptr) return reader(index).read(entry.offset + begin, out);
    constexpr std::uint64_t kBytesPerRead = 64 << 10;
    const std::uint64_t stored_bytes = entry.type->block_bytes;
    const std::uint64_t block_bytes = entry.type->block_values * sizeof(float);
    std::vector<std::byte> stored;
    while (!out.empty()) {
      const std::uint64_t first = begin / block_bytes;
      const std::uint64_t last = std::min((begin + out.size() + block_bytes - 1) / block_bytes, first + kBytesPerRead / stored_bytes);
      stored.resize((last - first) * stored_bytes);
      reader(index).read(entry.offset + first * stored_bytes, stored);
      for (std::uint64_t block = first; block < last; ++block) {
        float values[kMaxBlockValues];
        entry.type->decode(stored.data() + (block - first) * stored_bytes, values);
        const std::uint64_t from = begin - block * block_bytes;  // not 0 only in the first block
        const std::size_t count = std::min<std::uint64_t>(block_bytes - from, out.size());
        std::memcpy(out.data(), reinterpret_cast<const std::byte*>(values) + from, count);
        out = out.subspan(count);
        begin += count;
      }
    }
  }

  std::optional<qmill::Extent> extent(std::size_t index) const override {
    const Entry& entry = entries_[index];
    if (entry.type->decode != nullptr) return std::nullopt;
    return qmill::Extent{reader(index).path(), entry.offset, entry.bytes};
  }

  void prefetch(std::size_t index) const override { reader(index).prefetch(entries_[index].offset, entries_[index].bytes); }

  std::string stored_type(std::size_t index) const override {
    return entries_[index].type->decode == nullptr ? std::string() : std::string(entries_[index].type->name);
  }

  std::vector<std::string> remarks() const override {
    std::vector<std::string> remarks;
    if (readers_.size() > 1)
      remarks.push_back(fmt::format("the model is split: all {} parts are read, '{}' to '{}'", readers_.size(),
                                    readers_.front()->path().filename().string(), readers_.back()->path().filename().string()));
    if (linear_ != 0)
      remarks.push_back(fmt::format("{} weights that stable-diffusion.cpp stores as 1x1 convolutions are matrices again", linear_));
    return remarks;
  }

 private:
  const FileReader& reader(std::size_t index) const { return *readers_[file_of_[index]]; }

  void require_unique_names() const {
    if (readers_.size() == 1) return;  // its header was checked
    std::map<std::string_view, std::size_t> owner;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const auto [first, is_new] = owner.emplace(entries_[i].info.name, i);
      if (is_new) continue;
      in_file(reader(i).path(), [&] {
        reject(fmt::format("tensor '{}' is also in {}", entries_[i].info.name, quoted(reader(first->second).path())),
               "these are not the parts of one model; get all of them again");
      });
    }
  }

  std::vector<std::unique_ptr<FileReader>> readers_;
  std::map<std::string, std::string> metadata_;
  std::vector<Entry> entries_;
  std::vector<std::size_t> file_of_;  // by entry
  std::vector<qmill::TensorInfo> tensors_;
  std::size_t linear_ = 0;  // weights
};

}  // namespace

std::unique_ptr<qmill::TensorSource> open_model(const fs::path& path) { return std::make_unique<Source>(path); }

}  // namespace gguf
