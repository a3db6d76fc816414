#include <qmill/shards.h>

#include <qmill/error.h>
#include <qmill/file_reader.h>
#include <qmill/json_check.h>
#include <qmill/source_details.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <set>

namespace qmill {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kDigits = 5;  // as Hugging Face and llama.cpp write them: "step-3-of-10.safetensors" is a model of its own
constexpr std::string_view kOf = "-of-";

std::string quoted(const fs::path& path) { return fmt::format("'{}'", path.string()); }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The digits at the end of `text`, taken off it.
std::string_view take_digits(std::string_view& text) {
  std::size_t begin = text.size();
  while (begin > 0 && is_digit(text[begin - 1])) --begin;
  const std::string_view digits = text.substr(begin);
  text.remove_suffix(digits.size());
  return digits;
}

std::optional<std::int64_t> number_of(std::string_view digits) {
  std::int64_t number = 0;
  if (digits.size() != kDigits) return std::nullopt;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

// "'a', 'b' and 7 more"
std::string list_text(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 6;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

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

void require_files(const ShardIndex& index) {
  const std::vector<fs::path> files = index.files();
  std::vector<std::string> missing;
  std::error_code ignored;
  for (const fs::path& file : files)
    if (!fs::exists(file, ignored)) missing.push_back(file.filename().string());
  if (!missing.empty())
    throw Error(ErrorKind::input,
                fmt::format("{} of the {} files that the index names {} missing: {}", missing.size(), files.size(),
                            missing.size() == 1 ? "is" : "are", list_text(missing)),
                "download the missing files into its folder");
}

class JoinedSource final : public TensorSource, public SourceDetails {
 public:
  explicit JoinedSource(std::vector<std::unique_ptr<TensorSource>> shards) : shards_(std::move(shards)) {
    for (const auto& shard : shards_) files_.push_back(shard->files().front());
    std::map<std::string, std::size_t> owner;
    for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
      for (std::size_t i = 0; i < shards_[shard]->tensors().size(); ++i) {
        const TensorInfo& tensor = shards_[shard]->tensors()[i];
        const auto [first, is_new] = owner.emplace(tensor.name, shard);
        if (!is_new)
          throw Error(ErrorKind::input, fmt::format("tensor '{}' is also in {}", tensor.name, quoted(files_[first->second])),
                      "these are files of different models; name one of them, or an index")
              .in(quoted(files_[shard]));
        tensors_.push_back(tensor);
        places_.push_back({shard, i});
      }
      for (const auto& entry : shards_[shard]->metadata()) metadata_.insert(entry);
    }
  }

  const fs::path& shard_of(std::size_t index) const { return files_[places_[index].shard]; }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<fs::path> files() const override { return files_; }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    shards_[places_[index].shard]->read_part(places_[index].index, begin, out);
  }
  std::optional<Extent> extent(std::size_t index) const override { return shards_[places_[index].shard]->extent(places_[index].index); }
  void prefetch(std::size_t index) const override { shards_[places_[index].shard]->prefetch(places_[index].index); }

  std::string stored_type(std::size_t index) const override {
    return qmill::stored_type(*shards_[places_[index].shard], places_[index].index);
  }
  std::vector<std::string> remarks() const override {
    std::vector<std::string> remarks;
    for (const auto& shard : shards_)
      for (std::string& remark : source_remarks(*shard)) remarks.push_back(std::move(remark));
    return remarks;
  }

 private:
  struct Place {
    std::size_t shard;
    std::size_t index;  // there
  };

  std::vector<std::unique_ptr<TensorSource>> shards_;
  std::vector<fs::path> files_;  // by shard
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;
  std::map<std::string, std::string> metadata_;
};

void require_indexed(const JoinedSource& source, const ShardIndex& index) {
  constexpr const char* kAdvice = "index and shards are of different models; get them again";
  std::set<std::string_view> present;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const std::string& name = source.tensors()[i].name;
    const auto expected = index.file_of.find(name);
    if (expected == index.file_of.end() || expected->second != source.shard_of(i))
      throw Error(ErrorKind::input, fmt::format("tensor '{}' is in {}, which the index does not say", name, quoted(source.shard_of(i))),
                  kAdvice);
    present.insert(name);
  }
  for (const auto& [name, file] : index.file_of)
    if (!present.contains(name))
      throw Error(ErrorKind::input, fmt::format("tensor '{}' is not in {}, where the index says it is", name, quoted(file)), kAdvice);
}

}  // namespace

std::optional<ShardName> parse_shard_name(std::string_view file_name) {
  // The ending begins at the last dot: "model.fp16-00001-of-00002.safetensors".
  const std::size_t dot = file_name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  ShardName name;
  name.ending = file_name.substr(dot);
  std::string_view rest = file_name.substr(0, dot);
  const std::optional<std::int64_t> count = number_of(take_digits(rest));
  if (!count || !rest.ends_with(kOf)) return std::nullopt;
  rest.remove_suffix(kOf.size());
  const std::optional<std::int64_t> number = number_of(take_digits(rest));
  if (!number || !rest.ends_with('-')) return std::nullopt;
  rest.remove_suffix(1);
  name.stem = rest;
  name.number = *number;
  name.count = *count;
  return name;
}

std::string shard_name_text(const ShardName& name) {
  return fmt::format("{}-{:0{}}{}{:0{}}{}", name.stem, name.number, kDigits, kOf, name.count, kDigits, name.ending);
}

std::vector<fs::path> shards_beside(const fs::path& file) {
  const std::optional<ShardName> wanted = parse_shard_name(file.filename().string());
  if (!wanted || (wanted->count == 1 && wanted->number == 1)) return {file};
  if (wanted->number < 1 || wanted->number > wanted->count)
    throw Error(ErrorKind::input, fmt::format("its name says that it is part {} of {}", wanted->number, wanted->count), "rename it")
        .in(quoted(file));
  std::map<std::int64_t, fs::path> found;
  std::error_code code;
  const fs::path folder = file.parent_path();
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    const std::optional<ShardName> other = parse_shard_name(name);
    if (other && other->stem == wanted->stem && other->ending == wanted->ending && other->count == wanted->count)
      found.emplace(other->number, folder / name);
  }
  if (code) throw Error(ErrorKind::io, fmt::format("cannot read its folder: {}", code.message())).in(quoted(file));
  std::vector<fs::path> files;
  std::vector<std::string> missing;
  for (std::int64_t number = 1; number <= wanted->count; ++number)
    if (const auto part = found.find(number); part != found.end())
      files.push_back(part->second);
    else
      missing.push_back(shard_name_text({wanted->stem, wanted->ending, number, wanted->count}));
  if (!missing.empty())
    throw Error(ErrorKind::input,
                fmt::format("it is one of {} parts of a model, and {} {} missing: {}", wanted->count, missing.size(),
                            missing.size() == 1 ? "is" : "are", list_text(missing)),
                "download all parts into one folder")
        .in(quoted(file));
  return files;
}

fs::path index_beside(const fs::path& file) {
  const std::optional<ShardName> name = parse_shard_name(file.filename().string());
  if (!name) return {};
  fs::path index = file.parent_path() / (name->stem + name->ending + ".index.json");
  std::error_code ignored;
  return fs::exists(index, ignored) ? index : fs::path();
}

std::vector<fs::path> ShardIndex::files() const {
  std::set<fs::path> files;
  for (const auto& [tensor, file] : file_of) files.insert(file);
  return {files.begin(), files.end()};
}

ShardIndex parse_shard_index(std::string_view text, const fs::path& path) {
  constexpr int kMaxDepth = 8;
  check_json(text, "the index", kMaxDepth);
  const nlohmann::json parsed = nlohmann::json::parse(text);
  if (!parsed.is_object() || !parsed.contains("weight_map") || !parsed["weight_map"].is_object())
    throw Error(ErrorKind::input, "the index is not a JSON object with a 'weight_map'", "get it again");
  ShardIndex index;
  for (const auto& [tensor, shard] : parsed["weight_map"].items()) {
    if (!shard.is_string()) throw Error(ErrorKind::input, fmt::format("the index gives no file name for tensor '{}'", tensor));
    index.file_of.emplace(tensor, shard_path(path, shard.get<std::string>()));
  }
  return index;
}

ShardIndex read_shard_index(const fs::path& path) {
  const FileReader reader(path);
  require_no_lfs_pointer(reader);
  if (reader.size() > kMaxIndexBytes)
    throw Error(ErrorKind::input, fmt::format("the index has {} bytes, allowed are {}", reader.size(), kMaxIndexBytes));
  std::string text(reader.size(), '\0');
  reader.read(0, std::as_writable_bytes(std::span(text)));
  ShardIndex index = parse_shard_index(text, path);
  require_files(index);
  return index;
}

std::unique_ptr<TensorSource> open_shards(const std::vector<fs::path>& files, const ShardIndex* index, const OpenFile& open_file) {
  std::vector<std::unique_ptr<TensorSource>> shards;
  for (const fs::path& file : files) shards.push_back(open_file(file));
  if (shards.size() == 1 && index == nullptr) return std::move(shards.front());
  auto source = std::make_unique<JoinedSource>(std::move(shards));
  if (index != nullptr) require_indexed(*source, *index);
  return source;
}

std::unique_ptr<TensorSource> open_indexed(const fs::path& index, const OpenFile& open_file) {
  try {
    const ShardIndex read = read_shard_index(index);
    return open_shards(read.files(), &read, open_file);
  } catch (Error& error) {
    throw error.in(quoted(index));
  }
}

std::unique_ptr<TensorSource> open_whole_model(const fs::path& file, const OpenFile& open_file) {
  const fs::path index = index_beside(file);
  if (index.empty()) return open_shards(shards_beside(file), nullptr, open_file);
  std::unique_ptr<TensorSource> source = open_indexed(index, open_file);
  const std::vector<fs::path> files = source->files();
  if (std::find(files.begin(), files.end(), file) == files.end())
    throw Error(ErrorKind::input, fmt::format("the index beside it, {}, does not name it", quoted(index)),
                "name the index, or move the file")
        .in(quoted(file));
  return source;
}

}  // namespace qmill
