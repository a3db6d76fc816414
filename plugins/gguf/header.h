// The header of a GGUF file: magic, version, key-value pairs, one entry per tensor; then the data.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "cursor.h"
#include "key_values.h"
#include "tensor_types.h"

#include <qmill/tensor_info.h>

#include <limits>
#include <vector>

namespace gguf {

// In a tensor; for an empty one, the product of its other dimensions. Values x 64 fit 63 bits, so that no later arithmetic can overflow.
inline constexpr std::uint64_t kMaxValues = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / 64;

struct Entry {
  qmill::TensorInfo info;            // as it is presented, row-major: dimensions reversed; blocks of codes as F32
  const TensorType* type = nullptr;  // in the file
  std::uint64_t offset = 0;          // in the file
  std::uint64_t bytes = 0;           // there
};

struct Header {
  std::vector<Entry> entries;  // by offset
  KeyValues keys;
};

// Everything is checked: counts, lengths and types against what the file can hold, names, sizes, that the tensors lie in the file and do
// not overlap. Memory stays within a small multiple of the header's bytes. Throws Error(input), or Error(unsupported) for a version, byte
// order or tensor type that is not read; both name the tensor or key.
Header parse_header(std::uint64_t file_size, const ReadAt& read);

}  // namespace gguf
