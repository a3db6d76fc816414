#include "source.h"

#include "header.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace safetensors {
namespace {

namespace fs = std::filesystem;
using qmill::Error;
using qmill::ErrorKind;
using qmill::FileReader;

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr std::uint64_t kMaxIndexBytes = 100'000'000;

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

class FilesSource final : public qmill::TensorSource {
 public:
  explicit FilesSource(const std::vector<fs::path>& files) {
    std::map<std::string, std::size_t> owner;
    for (const fs::path& file : files) {
      readers_.push_back(std::make_unique<FileReader>(file));
      Header header = read_header(*readers_.back());
      for (Entry& entry : header.entries) {
        const auto [first, is_new] = owner.emplace(entry.info.name, readers_.size() - 1);
        if (!is_new)
          throw Error(ErrorKind::input, fmt::format("tensor '{}' is also in {}", entry.info.name, quoted(readers_[first->second]->path())),
                      "the folder holds shards of different models; name one file or its index")
              .in(quoted(file));
        places_.push_back({readers_.size() - 1, entry.offset});
        tensors_.push_back(std::move(entry.info));
      }
      metadata_.merge(header.metadata);
    }
  }

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }

  std::vector<fs::path> files() const override {
    std::vector<fs::path> files;
    for (const auto& reader : readers_) files.push_back(reader->path());
    return files;
  }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    readers_[places_[index].file]->read(places_[index].offset + begin, out);
  }

  std::optional<qmill::Extent> extent(std::size_t index) const override {
    return qmill::Extent{readers_[places_[index].file]->path(), places_[index].offset, static_cast<std::uint64_t>(tensors_[index].bytes())};
  }

  void prefetch(std::size_t index) const override {
    readers_[places_[index].file]->prefetch(places_[index].offset, static_cast<std::uint64_t>(tensors_[index].bytes()));
  }

 private:
  struct Place {
    std::size_t file;
    std::uint64_t offset;
  };
  std::vector<std::unique_ptr<FileReader>> readers_;
  std::vector<qmill::TensorInfo> tensors_;
  std::vector<Place> places_;
  std::map<std::string, std::string> metadata_;
};

// A shard named by an index must lie beside it: an index is data from elsewhere and must not reach other files.
fs::path shard_path(const fs::path& index, const std::string& name) {
  // The operating system ends a name at its first zero byte, and so would open another file than the one that is named.
  if (std::any_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }))
    throw Error(ErrorKind::input,
                fmt::format("the index names the shard {}, expected a file name without control characters",
                            nlohmann::json(name).dump(-1, ' ', true)),
                "get the index again");
  const fs::path shard(name);
  if (name.empty() || shard.has_root_path() || shard.has_parent_path() || name == "..")
    throw Error(ErrorKind::input, fmt::format("the index names the shard '{}', expected a file name in its own folder", name));
  return index.parent_path() / shard;
}

std::map<std::string, fs::path> read_weight_map(const fs::path& index) {
  const FileReader reader(index);
  if (reader.size() > kMaxIndexBytes)
    throw Error(ErrorKind::input, fmt::format("the index has {} bytes, allowed are {}", reader.size(), kMaxIndexBytes));
  const nlohmann::json parsed = nlohmann::json::parse(read_text(reader, 0, reader.size()), nullptr, false);
  if (!parsed.is_object() || !parsed.contains("weight_map") || !parsed["weight_map"].is_object())
    throw Error(ErrorKind::input, "the index is not a JSON object with a 'weight_map'", "get it again");
  std::map<std::string, fs::path> weight_map;
  for (const auto& [tensor, shard] : parsed["weight_map"].items()) {
    if (!shard.is_string()) throw Error(ErrorKind::input, fmt::format("the index gives no file name for tensor '{}'", tensor));
    weight_map.emplace(tensor, shard_path(index, shard.get<std::string>()));
  }
  return weight_map;
}

}  // namespace

bool is_index(const fs::path& path) { return path.filename().string().ends_with(kIndexSuffix); }

std::unique_ptr<qmill::TensorSource> open_files(const std::vector<fs::path>& files, const std::map<std::string, fs::path>* weight_map) {
  auto source = std::make_unique<FilesSource>(files);
  if (weight_map == nullptr) return source;
  std::set<std::string> present;
  for (std::size_t i = 0; i < source->tensors().size(); ++i) {
    const std::string& name = source->tensors()[i].name;
    const auto expected = weight_map->find(name);
    if (expected == weight_map->end() || expected->second != source->extent(i)->file)
      throw Error(ErrorKind::input,
                  fmt::format("tensor '{}' is in {}, which the index does not say", name, quoted(source->extent(i)->file)),
                  "index and shards are of different models; get them again");
    present.insert(name);
  }
  for (const auto& [name, file] : *weight_map)
    if (!present.contains(name))
      throw Error(ErrorKind::input, fmt::format("tensor '{}' is not in {}, where the index says it is", name, quoted(file)),
                  "index and shards are of different models; get them again");
  return source;
}

std::unique_ptr<qmill::TensorSource> open_index(const fs::path& index) {
  try {
    const std::map<std::string, fs::path> weight_map = read_weight_map(index);
    std::set<fs::path> shards;
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
    return open_files({shards.begin(), shards.end()}, &weight_map);
  } catch (Error& error) {
    throw error.in(quoted(index));
  }
}

std::unique_ptr<qmill::TensorSource> open_folder(const fs::path& folder) {
  std::vector<fs::path> shards;
  std::vector<fs::path> indexes;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (is_index(entry.path()))
      indexes.push_back(entry.path());
    else if (entry.path().extension() == ".safetensors")
      shards.push_back(entry.path());
  }
  if (indexes.size() > 1)
    throw Error(ErrorKind::input, fmt::format("{} holds {} indexes, expected one", quoted(folder), indexes.size()), "name one of them");
  if (indexes.size() == 1) return open_index(indexes.front());
  if (shards.empty()) throw Error(ErrorKind::input, fmt::format("{} holds no .safetensors file", quoted(folder)));
  std::sort(shards.begin(), shards.end());
  return open_files(shards, nullptr);
}

}  // namespace safetensors
