#include "plugins/gguf/header.h"

#include <qmill/error.h>

#include <cstdlib>
#include <cstring>

// The input is a whole file, and then one that goes on with 4 MiB of zeros.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const std::uint64_t file_size : {static_cast<std::uint64_t>(size), std::uint64_t{size} + (4 << 20)}) {
    const auto read = [&](std::uint64_t offset, std::span<std::byte> out) {
      if (offset > file_size || out.size() > file_size - offset) std::abort();
      std::memset(out.data(), 0, out.size());
      if (offset < size) std::memcpy(out.data(), data + offset, std::min<std::uint64_t>(out.size(), size - offset));
    };
    try {
      for (const gguf::Entry& entry : gguf::parse_header(file_size, read).entries)
        if (entry.offset > file_size || entry.bytes > file_size - entry.offset) std::abort();
    } catch (const qmill::Error&) {
    }
  }
  return 0;
}
