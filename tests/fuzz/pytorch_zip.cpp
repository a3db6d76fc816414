#include "plugins/pytorch/zip.h"

#include <qmill/error.h>

#include <cstdlib>
#include <cstring>

// The input is a whole file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto read = [&](std::uint64_t offset, std::span<std::byte> out) {
    if (offset > size || out.size() > size - offset) std::abort();
    if (!out.empty()) std::memcpy(out.data(), data + offset, out.size());
  };
  try {
    for (const auto& [name, entry] : pytorch::read_zip_directory(size, read))
      if (entry.offset > size || entry.bytes > size - entry.offset) std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
