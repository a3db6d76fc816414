// The key-value pairs in the header of a GGUF file: those of the model, and those of the container.
#pragma once

#include "cursor.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gguf {

inline constexpr std::uint64_t kMaxNameBytes = 65535;
inline constexpr std::uint64_t kMaxDimensions = 8;  // ggml has 4, files of video models 5

using Shape = std::vector<std::int64_t>;  // row-major

// What a part says of the set of files that the model was split into: split.no, split.count, split.tensors.count.
struct SplitKeys {
  std::optional<std::uint64_t> number;   // from 0
  std::optional<std::uint64_t> count;    // of parts; 0 and 1: the model is in this file
  std::optional<std::uint64_t> tensors;  // in all parts
};

struct KeyValues {
  std::map<std::string, std::string> metadata;  // of the model: scalars as text; arrays are left out
  std::uint64_t alignment = 32;                 // general.alignment
  SplitKeys split;
  std::map<std::string, Shape> original_shapes;  // by tensor: comfy.gguf.orig_shape.NAME
};

// Throws Error(input) that names the key.
KeyValues parse_key_values(Cursor& cursor, std::uint64_t count);

}  // namespace gguf
