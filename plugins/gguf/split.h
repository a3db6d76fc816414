// A model that was split into several files, NAME-00001-of-00003.gguf and so on, each of which says which part it is.
// Names and keys: https://github.com/ggml-org/llama.cpp/tree/master/tools/gguf-split.
#pragma once

#include "key_values.h"

#include <filesystem>
#include <vector>

namespace gguf {

inline constexpr std::uint64_t kMaxParts = 1000;  // each is an open file

// All files of the model that `file` with these keys belongs to, in order; one where it is the whole model. Throws Error(input) for a name
// and keys that say different things, and for missing files, which it names.
std::vector<std::filesystem::path> part_files(const std::filesystem::path& file, const SplitKeys& keys);

// Throws Error(input) unless a file with the keys `part` is part `number`, from 0, of the model that a file with the keys `known` is of.
void require_part(const KeyValues& part, std::uint64_t number, const KeyValues& known);

}  // namespace gguf
