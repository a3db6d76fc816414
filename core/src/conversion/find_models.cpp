#include <qmill/core/batch.h>

#include "io/regex.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>
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

// "model-00001-of-00003.safetensors" -> the index beside it, if there is one.
fs::path index_of_shard(const fs::path& file) {
  static const Regex shard = Regex::of_bytes(R"(-\d{5}-of-\d{5}\.safetensors$)");
  constexpr std::size_t kSuffix = std::string_view("-00001-of-00003.safetensors").size();
  const std::string name = file.filename().string();
  if (!shard.search(name)) return {};
  fs::path index = file.parent_path() / (name.substr(0, name.size() - kSuffix) + ".safetensors.index.json");
  std::error_code ignored;
  return fs::exists(index, ignored) ? index : fs::path();
}

std::vector<fs::path> matching(const fs::path& folder, std::string_view pattern) {
  const Regex regex = wildcard(pattern);
  std::set<fs::path> models;
  std::error_code code;
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    std::error_code unreadable;  // a link that leads nowhere is no model
    if (name.starts_with(".") || !entry->is_regular_file(unreadable) || !regex.matches_whole(name)) continue;
    const fs::path path = folder / name;
    const fs::path index = index_of_shard(path);
    models.insert(index.empty() ? path : index);
  }
  if (code) throw Error(ErrorKind::io, fmt::format("cannot read the folder: {}", code.message())).in(fmt::format("'{}'", folder.string()));
  return {models.begin(), models.end()};
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
