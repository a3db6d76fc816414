// A model in several files (shards): how they are named, what an index says, and all of them as one source. For loaders.
#pragma once

#include <qmill/loader.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qmill {

// "model-00001-of-00003.safetensors": part 1 of 3, stem "model", ending ".safetensors". Both numbers have exactly 5 digits.
struct ShardName {
  std::string stem;
  std::string ending;
  std::int64_t number = 0;  // from 1; as the name says, which may be 0 or beyond `count`
  std::int64_t count = 0;
};

inline constexpr std::int64_t kMaxShards = 99'999;

// The file name that says this. [any-thread]
QMILL_API std::string shard_name_text(const ShardName& name);

// Nothing for other names. [any-thread]
QMILL_API std::optional<ShardName> parse_shard_name(std::string_view file_name);

// All files of the set that `file` is a part of, in order; only `file` when its name says no set. Looks at names, opens nothing.
// Throws Error(input) that names the missing parts, or the file where its number is none of 1 to its count, and Error(io) for a folder
// that cannot be read. [any-thread]
QMILL_API std::vector<std::filesystem::path> shards_beside(const std::filesystem::path& file);

// The index beside a part: its stem and ending, then ".index.json". Empty: there is none, or `file` is no part. [any-thread]
QMILL_API std::filesystem::path index_beside(const std::filesystem::path& file);

// Which file of a folder holds which tensor: {"weight_map": {tensor: file}}.
struct QMILL_API ShardIndex {
  std::map<std::string, std::filesystem::path> file_of;

  std::vector<std::filesystem::path> files() const;  // each once, sorted [any-thread]
};

// What the text of an index says. `path`: of the index; its files are in the same folder, an index must not reach out of it.
// Throws Error(input). [any-thread]
QMILL_API ShardIndex parse_shard_index(std::string_view text, const std::filesystem::path& path);

// The same of a file; also throws Error(input) that names the files that do not exist, and Error(io). [any-thread]
QMILL_API ShardIndex read_shard_index(const std::filesystem::path& path);

// Returns a source of this one file, whose files() are that file. What it throws goes to the caller.
using OpenFile = std::function<std::unique_ptr<TensorSource>(const std::filesystem::path&)>;

// Several files as one source: their tensors in this order; of metadata with the same key, the first. Throws Error(input) for a tensor that
// two of them have, and for any that is not where the index (null: none) says. [any-thread, like `open_file`]
QMILL_API std::unique_ptr<TensorSource> open_shards(const std::vector<std::filesystem::path>& files, const ShardIndex* index,
                                                    const OpenFile& open_file);

// The model of an index: all files that it names. Throws as read_shard_index() and open_shards() do; every Error names the index.
// [any-thread, like `open_file`]
QMILL_API std::unique_ptr<TensorSource> open_indexed(const std::filesystem::path& index, const OpenFile& open_file);

// The model that `file` is, or is a part of: by the index beside it, else by the names of the other parts. Throws as open_indexed(),
// shards_beside() and open_shards() do, and Error(input) where the index beside `file` does not name it. [any-thread, like `open_file`]
QMILL_API std::unique_ptr<TensorSource> open_whole_model(const std::filesystem::path& file, const OpenFile& open_file);

}  // namespace qmill
