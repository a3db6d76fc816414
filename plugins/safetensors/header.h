// The header of one safetensors file: 8 bytes of length (little-endian), then that many bytes of JSON, then the data.
// Format: https://github.com/huggingface/safetensors (README, "Format").
#pragma once

#include <qmill/tensor_info.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace safetensors {

inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference reader

struct Entry {
  qmill::TensorInfo info;
  std::uint64_t offset = 0;  // in the file
};

struct Header {
  std::vector<Entry> entries;  // by offset
  std::map<std::string, std::string> metadata;
};

// The number of header bytes from the first 8 bytes of the file. Throws Error(input).
std::uint64_t header_length(std::string_view first_bytes, std::uint64_t file_size);

// Everything is checked: JSON, types, shapes, sizes, that the tensors fill the file without gap or overlap. Throws Error(input)
// that names the tensor.
Header parse_header(std::string_view json, std::uint64_t file_size);

}  // namespace safetensors
