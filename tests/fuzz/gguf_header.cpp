#include "plugins/gguf/header.h"
#include "plugins/gguf/true_shapes.h"

#include <qmill/error.h>

#include <cstdlib>
#include <cstring>

namespace {

void check(std::uint64_t file_size, const gguf::ReadAt& read) {
  gguf::Header header = gguf::parse_header(file_size, read);
  std::vector<std::int64_t> elements;
  for (const gguf::Entry& entry : header.entries) {
    if (entry.offset > file_size || entry.bytes > file_size - entry.offset) std::abort();
    if (entry.type == nullptr || entry.info.shape.size() > gguf::kMaxDimensions) std::abort();
    elements.push_back(entry.info.elements());
    if (static_cast<std::uint64_t>(elements.back()) / entry.type->block_values * entry.type->block_bytes != entry.bytes) std::abort();
  }
  gguf::restore_linear(header.entries, header.keys.metadata);
  for (gguf::Entry& entry : header.entries) gguf::restore_folded(entry, header.keys.original_shapes);
  for (std::size_t i = 0; i < elements.size(); ++i)
    if (header.entries[i].info.elements() != elements[i]) std::abort();
}

}  // namespace

// The input is a whole file, and then one that goes on with 4 MiB of zeros.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const std::uint64_t file_size : {static_cast<std::uint64_t>(size), std::uint64_t{size} + (4 << 20)}) {
    const auto read = [&](std::uint64_t offset, std::span<std::byte> out) {
      if (offset > file_size || out.size() > file_size - offset) std::abort();
      std::memset(out.data(), 0, out.size());
      if (offset < size) std::memcpy(out.data(), data + offset, std::min<std::uint64_t>(out.size(), size - offset));
    };
    try {
      check(file_size, read);
    } catch (const qmill::Error&) {
    }
  }
  return 0;
}
