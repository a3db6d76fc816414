#include <qmill/core/batch.h>

#include "io/regex.h"
#include "io/text_file.h"

#include <qmill/error.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace qmill {
namespace {

namespace fs = std::filesystem;

Regex wildcard(std::string_view pattern) {
  std::string regex;
  for (const char letter : pattern)
    regex += letter == '*' ? "(?s:.*)" : letter == '?' ? "(?s:.)" : escape_regex(std::string_view(&letter, 1));
  return Regex::of_bytes(regex);
}

constexpr std::string_view kIndexEnding = ".index.json";

// "m.safetensors.index.json" is of the model "m.safetensors". Empty: it is no index.
std::string indexed_name(const std::string& name) {
  const bool is_index = name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json");
  return is_index ? name.substr(0, name.size() - kIndexEnding.size()) : "";
}

// The models of a folder: files, and for those in several files their index, or the first of the parts that are there.
class FolderModels {
 public:
  explicit FolderModels(fs::path folder) : folder_(std::move(folder)) {}

  void add_index(const std::string& name) {
    if (!models_.insert(folder_ / name).second) return;  // each of its parts leads here
    try {
      for (const fs::path& file : parse_shard_index(read_text_file(folder_ / name, kMaxIndexBytes), folder_ / name).files())
        indexed_.insert(file);
    } catch (const Error&) {  // opening it says what is wrong
    }
  }

  void add_file(const std::string& name) {
    const fs::path file = folder_ / name;
    if (const fs::path index = index_beside(file); !index.empty()) return add_index(index.filename().string());
    const std::optional<ShardName> part = parse_shard_name(name);
    if (!part || part->count < 2) {
      models_.insert(file);
      return;
    }
    const auto [first, is_new] = sets_.emplace(fmt::format("{}/{}/{}", part->stem, part->count, part->ending), file);
    if (!is_new) first->second = std::min(first->second, file);
  }

  std::vector<fs::path> models() const {
    std::set<fs::path> models = models_;
    for (const auto& [set, first] : sets_) models.insert(first);
    for (const fs::path& file : indexed_) models.erase(file);
    return {models.begin(), models.end()};
  }

 private:
  static constexpr std::uint64_t kMaxIndexBytes = 100'000'000;

  fs::path folder_;
  std::set<fs::path> models_;
  std::set<fs::path> indexed_;            // files that an index names
  std::map<std::string, fs::path> sets_;  // of parts without an index: the first one
};

std::vector<fs::path> matching(const fs::path& folder, std::string_view pattern) {
  const Regex regex = wildcard(pattern);
  FolderModels models(folder);
  std::error_code code;
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    std::error_code unreadable;  // a link that leads nowhere is no model
    if (name.starts_with(".") || !entry->is_regular_file(unreadable)) continue;
    const std::string indexed = indexed_name(name);
    if (!indexed.empty() && (regex.matches_whole(indexed) || regex.matches_whole(name)))
      models.add_index(name);
    else if (indexed.empty() && regex.matches_whole(name))
      models.add_file(name);
  }
  if (code) throw Error(ErrorKind::io, fmt::format("cannot read the folder: {}", code.message())).in(fmt::format("'{}'", folder.string()));
  return models.models();
}

}  // namespace

std::vector<fs::path> find_models(const fs::path& folder, std::string_view pattern) {
  std::vector<fs::path> models = matching(folder, pattern);
  if (models.empty())
    throw Error(ErrorKind::usage, fmt::format("no file in it matches '{}'", pattern), "choose another `directory` or `pattern`")
        .in(fmt::format("'{}'", folder.string()));
  return models;
}

std::vector<fs::path> expand_model(const fs::path& path) {
  std::error_code ignored;
  const std::string name = path.filename().string();
  if (fs::exists(path, ignored) || name.find_first_of("*?") == std::string::npos) return {path};
  std::vector<fs::path> models = matching(path.parent_path(), name);
  if (models.empty()) throw Error(ErrorKind::usage, fmt::format("no file matches '{}'", path.string()));
  return models;
}

}  // namespace qmill
