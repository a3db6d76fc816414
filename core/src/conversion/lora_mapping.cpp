#include <qmill/core/batch.h>

#include "conversion/default_names.h"
#include "io/json_text.h"
#include "io/text_file.h"

#include <qmill/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace qmill {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxMappingBytes = 16 << 20;

bool is_separator(char letter) { return letter == '.' || letter == '_' || letter == '-'; }

// Whether `key` stands in `name`, with a separator or an end on both sides.
bool stands_in(std::string_view key, std::string_view name) {
  for (std::size_t at = name.find(key); at != std::string_view::npos; at = name.find(key, at + 1)) {
    const std::size_t end = at + key.size();
    if ((at == 0 || is_separator(name[at - 1])) && (end == name.size() || is_separator(name[end]))) return true;
  }
  return false;
}

std::vector<fs::path> paths_of(const std::string& key, const nlohmann::ordered_json& value, const fs::path& folder) {
  std::vector<nlohmann::ordered_json> items;
  if (value.is_array())
    items.assign(value.begin(), value.end());
  else
    items = {value};
  std::vector<fs::path> paths;
  for (const nlohmann::ordered_json& item : items) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty())
      throw Error(ErrorKind::input, fmt::format("entry '{}' is {}, expected a path or a list of paths", key, excerpt(value)));
    const fs::path path = item.get<std::string>();
    paths.push_back(folder.empty() || path.has_parent_path() ? path : folder / path);
  }
  if (paths.empty()) throw Error(ErrorKind::input, fmt::format("entry '{}' is an empty list, expected a path or a list of paths", key));
  return paths;
}

}  // namespace

LoraMapping::LoraMapping(const fs::path& file, fs::path folder) : folder_(std::move(folder)) {
  std::error_code ignored;
  if (!folder_.empty() && !fs::is_directory(folder_, ignored))
    throw Error(ErrorKind::input, "it is not a folder", "give the folder of the LoRAs with `lora_dir`")
        .in(fmt::format("'{}'", folder_.string()));
  if (file.empty()) return;
  try {
    const nlohmann::ordered_json mapping = parse_json(read_text_file(file, kMaxMappingBytes));
    if (!mapping.is_object()) throw Error(ErrorKind::input, fmt::format("it is a JSON {}, expected an object", mapping.type_name()));
    for (const auto& [key, value] : mapping.items()) {
      if (key.starts_with("_")) continue;
      if (key.empty()) throw Error(ErrorKind::input, "it has an empty key, expected the name of a model");
      entries_.push_back({key, paths_of(key, value, folder_)});
    }
  } catch (Error& error) {
    if (error.contexts().empty()) error.in(fmt::format("'{}'", file.string()));
    throw error;
  }
}

LoraMapping::Entry* LoraMapping::find(const fs::path& model) {
  const std::string name = (model.has_filename() ? model : model.parent_path()).filename().string();
  const std::string stem = model_stem(model);
  const auto first = [&](auto matches) -> Entry* {
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return matches(entry.key); });
    return found == entries_.end() ? nullptr : &*found;
  };
  if (Entry* entry = first([&](const std::string& key) { return key == name; })) return entry;
  if (Entry* entry = first([&](const std::string& key) { return key == stem; })) return entry;
  return first([&](const std::string& key) { return stands_in(key, stem) || stands_in(key, name); });
}

std::vector<fs::path> LoraMapping::loras_for(const fs::path& model) {
  if (Entry* entry = find(model)) {
    entry->is_used = true;
    return entry->loras;
  }
  if (folder_.empty()) return {};
  for (const char* ending : {".safetensors", "_lora.safetensors"}) {
    const fs::path lora = folder_ / (model_stem(model) + ending);
    std::error_code ignored;
    // The models' own folder may be that of the LoRAs: a model is not a LoRA of itself.
    if (fs::exists(lora, ignored) && !fs::equivalent(lora, model, ignored)) return {lora};
  }
  return {};
}

std::vector<std::string> LoraMapping::unused() const {
  std::vector<std::string> keys;
  for (const Entry& entry : entries_)
    if (!entry.is_used) keys.push_back(entry.key);
  return keys;
}

}  // namespace qmill
