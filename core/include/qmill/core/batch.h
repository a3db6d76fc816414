// Several models in one run: which files of a folder are models, and which LoRAs belong to each.
#pragma once

#include <qmill/core/export.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// Files of `folder` whose name matches `pattern` (* and ?), by name; shards that an index beside them names count as that one index.
// Hidden files are left out. Throws Error(usage) when there is none, Error(io) when the folder cannot be read.
QMILL_CORE_API std::vector<std::filesystem::path> find_models(const std::filesystem::path& folder, std::string_view pattern);

// A path as it is, or, when nothing has that name and its last part has * or ?, what matches it. Throws Error(usage) when nothing does.
QMILL_CORE_API std::vector<std::filesystem::path> expand_model(const std::filesystem::path& path);

// LoRAs by model. A mapping is a JSON object: names of models to a path or a list of paths; keys that begin with '_' are comments.
class QMILL_CORE_API LoraMapping {
 public:
  // `file`: the mapping, or empty for none; `folder`: where LoRAs are looked for, or empty. Throws Error(input) that names the entry, also
  // for a key that is there twice; Error(io).
  LoraMapping(const std::filesystem::path& file, std::filesystem::path folder);

  // The first that there is: the entry of the file's name; of its stem; the first entry, in the order of the mapping, whose key stands in
  // the stem between its ends, '.', '_' or '-'; <folder>/<stem>.safetensors; <folder>/<stem>_lora.safetensors. None: empty.
  // A mapped name without a folder of its own is in `folder`, if one is given. Notes which entries are used.
  std::vector<std::filesystem::path> loras_for(const std::filesystem::path& model);

  // Keys that no model had so far.
  std::vector<std::string> unused() const;

 private:
  struct Entry {
    std::string key;
    std::vector<std::filesystem::path> loras;
    bool is_used = false;
  };

  Entry* find(const std::filesystem::path& model);

  std::filesystem::path folder_;
  std::vector<Entry> entries_;
};

}  // namespace qmill
