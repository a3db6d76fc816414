#include "split.h"

#include <qmill/error.h>
#include <qmill/shards.h>

#include <fmt/format.h>

#include <algorithm>

namespace gguf {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGetAgain = "the file is damaged, or not a part of this model; get all parts again";

using PartName = qmill::ShardName;

std::string ending(std::uint64_t number, std::uint64_t count) { return fmt::format("-{:05}-of-{:05}.gguf", number, count); }

// Only with the ending that llama.cpp gives.
std::optional<PartName> parse_name(const fs::path& file) {
  std::optional<PartName> part = qmill::parse_shard_name(file.filename().string());
  return part && !part->stem.empty() && part->ending == ".gguf" ? part : std::nullopt;
}

void require_name(const std::optional<PartName>& name, std::uint64_t number, std::uint64_t count) {
  const std::string keys = fmt::format("its header says part {} of {}", number + 1, count);
  if (!name)
    reject(fmt::format("{}, its name does not end with '{}', so the other parts cannot be found", keys, ending(number + 1, count)),
           "give all parts the names back that they had");
  if (static_cast<std::uint64_t>(name->number) != number + 1 || static_cast<std::uint64_t>(name->count) != count)
    reject(fmt::format("{}, its name says part {} of {}", keys, name->number, name->count), "give all parts the names back that they had");
}

// The first few, and how many more.
std::string names_text(const std::vector<fs::path>& files) {
  constexpr std::size_t kNamed = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(kNamed, files.size()); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", files[i].filename().string());
  if (files.size() > kNamed) text += fmt::format(" and {} more", files.size() - kNamed);
  return text;
}

}  // namespace

std::vector<fs::path> part_files(const fs::path& file, const SplitKeys& keys) {
  const std::optional<PartName> name = parse_name(file);
  if (keys.count.value_or(0) <= 1 && name && name->count > 1)
    reject(fmt::format("its name says part {} of {}, its header {}", name->number, name->count,
                       keys.count ? fmt::format("has split.count {}", *keys.count) : "has no split.count"),
           "if it is a whole model, give it another name; else get one file with the whole model");
  if (!keys.count) {
    if (keys.number.value_or(0) != 0) reject(fmt::format("its header has split.no {}, but no split.count", *keys.number), kGetAgain);
    return {file};
  }
  const std::uint64_t count = *keys.count;
  if (count <= 1) {
    if (keys.number.value_or(0) != 0) reject(fmt::format("its split.no is {}, its split.count is {}", *keys.number, count), kGetAgain);
    return {file};
  }
  if (count > kMaxParts) reject(fmt::format("its split.count is {}, expected at most {}", count, kMaxParts), kGetAgain);
  if (!keys.number) reject(fmt::format("its header has split.count {}, but no split.no", count), kGetAgain);
  if (*keys.number >= count) reject(fmt::format("its split.no is {}, its split.count is {}", *keys.number, count), kGetAgain);
  require_name(name, *keys.number, count);
  std::vector<fs::path> files;
  std::vector<fs::path> missing;
  for (std::uint64_t i = 0; i < count; ++i) {
    files.push_back(i == *keys.number ? file : file.parent_path() / (name->stem + ending(i + 1, count)));
    std::error_code ignored;
    if (!fs::exists(files.back(), ignored)) missing.push_back(files.back());
  }
  if (!missing.empty())
    reject(fmt::format("it is part {} of {}; missing: {}", *keys.number + 1, count, names_text(missing)),
           "put all parts into one folder, under the names that they had");
  return files;
}

void require_part(const KeyValues& part, std::uint64_t number, const KeyValues& known) {
  const auto differ = [](std::string_view what, const std::string& found, const std::string& expected) {
    reject(fmt::format("its {} is {}, expected {} as the other parts say", what, found, expected), kGetAgain);
  };
  const auto text = [](const std::optional<std::uint64_t>& value) { return value ? std::to_string(*value) : std::string("missing"); };
  if (part.split.count != known.split.count) differ("split.count", text(part.split.count), text(known.split.count));
  if (part.split.number != number) differ("split.no", text(part.split.number), std::to_string(number));
  if (part.split.tensors && known.split.tensors && part.split.tensors != known.split.tensors)
    differ("split.tensors.count", text(part.split.tensors), text(known.split.tensors));
  constexpr const char* kArchitecture = "general.architecture";
  const auto found = part.metadata.find(kArchitecture);
  const auto expected = known.metadata.find(kArchitecture);
  if (found != part.metadata.end() && expected != known.metadata.end() && found->second != expected->second)
    differ(kArchitecture, fmt::format("'{}'", found->second), fmt::format("'{}'", expected->second));
}

}  // namespace gguf
