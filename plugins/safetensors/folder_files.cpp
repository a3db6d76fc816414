#include "folder_files.h"

#include <qmill/error.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <string>

namespace safetensors {
namespace {

namespace fs = std::filesystem;
using qmill::Error;
using qmill::ErrorKind;

// "x-2.safetensors": 2 of "x-*.safetensors".
struct Numbered {
  std::string pattern;
  std::int64_t number = -1;  // -1: it has none
};

Numbered numbered(const std::string& name) {
  const std::size_t end = name.rfind('.');
  std::size_t begin = end;
  while (begin > 0 && name[begin - 1] >= '0' && name[begin - 1] <= '9') --begin;
  constexpr std::size_t kMaxDigits = 6;
  const bool has_number =
      begin != end && end - begin <= kMaxDigits && begin > 0 && std::string_view("-_.").find(name[begin - 1]) != std::string_view::npos;
  if (!has_number) return {name, -1};
  Numbered result{name.substr(0, begin) + "*" + name.substr(end), 0};
  std::from_chars(name.data() + begin, name.data() + end, result.number);
  return result;
}

std::string model_of(const std::string& name) {
  const std::optional<qmill::ShardName> part = qmill::parse_shard_name(name);
  return part ? fmt::format("{}-*-of-{:05}{}", part->stem, part->count, part->ending) : numbered(name).pattern;
}

// Numbers count from 0 or 1; that the last ones are missing cannot be seen.
void require_no_gap(const std::map<std::int64_t, fs::path>& files, const std::string& pattern) {
  std::int64_t expected = files.begin()->first;
  std::string missing;
  if (expected > 1) missing = "1";
  for (const auto& [number, file] : files) {
    if (missing.empty() && number != expected) missing = std::to_string(expected);
    expected = number + 1;
  }
  if (!missing.empty())
    throw Error(ErrorKind::input, fmt::format("of the files '{}' number {} is missing", pattern, missing), "get it, or name one file");
}

}  // namespace

std::vector<fs::path> one_model(std::vector<fs::path> files) {
  std::sort(files.begin(), files.end());
  std::map<std::string, std::vector<fs::path>> models;  // by what their names have in common
  for (const fs::path& file : files) models[model_of(file.filename().string())].push_back(file);
  if (models.size() > 1) {
    constexpr std::size_t kShown = 6;
    std::string names;
    std::size_t shown = 0;
    for (const auto& [name, parts] : models)
      if (shown++ < kShown) names += fmt::format("{}'{}'", names.empty() ? "" : ", ", name);
    if (models.size() > kShown) names += fmt::format(" and {} more", models.size() - kShown);
    throw Error(ErrorKind::input, fmt::format("it holds {} models and no index: {}", models.size(), names), "name one of them");
  }
  if (qmill::parse_shard_name(files.front().filename().string())) return qmill::shards_beside(files.front());
  if (files.size() == 1) return files;
  std::map<std::int64_t, fs::path> by_number;
  for (const fs::path& file : files) by_number.emplace(numbered(file.filename().string()).number, file);
  require_no_gap(by_number, models.begin()->first);
  std::vector<fs::path> ordered;
  for (const auto& [number, file] : by_number) ordered.push_back(file);
  if (ordered.size() != files.size())
    throw Error(ErrorKind::input, fmt::format("two of the files '{}' have the same number", models.begin()->first), "name one of them");
  return ordered;
}

}  // namespace safetensors
