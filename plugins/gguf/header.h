// The header of a GGUF file: magic, version, key-value pairs, one entry per tensor; then the data.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <qmill/tensor_info.h>

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace gguf {

inline constexpr std::uint64_t kMaxHeaderBytes = 256u << 20;  // vocabularies are in it: real ones have some 20 MB

// 32 values in 34 bytes: an F16 factor d, then signed bytes q; the values are d * q.
inline constexpr std::int64_t kBlockValues = 32;
inline constexpr std::int64_t kBlockBytes = 34;

struct Entry {
  qmill::TensorInfo info;    // as it is presented, row-major: dimensions reversed; Q8_0 as F32
  bool is_q8_0 = false;      // else the bytes of the file are those of `info`
  std::uint64_t offset = 0;  // in the file
  std::uint64_t bytes = 0;   // there
};

struct Header {
  std::vector<Entry> entries;  // by offset
  std::map<std::string, std::string> metadata;
};

// Fills `out` from this place of the file; only called for what lies within it.
using ReadAt = std::function<void(std::uint64_t offset, std::span<std::byte> out)>;

// Everything is checked: counts, lengths and types against what the file can hold, names, sizes, that the tensors lie in the file and do
// not overlap. Memory stays within a small multiple of the header's bytes. Metadata are the scalar values as text; arrays are left out.
// Throws Error(input), or Error(unsupported) for a version, byte order or tensor type that is not read; both name the tensor or key.
Header parse_header(std::uint64_t file_size, const ReadAt& read);

}  // namespace gguf
