#include "plugins/safetensors/header.h"

#include <qmill/error.h>

#include <cstdlib>

// The input is a whole file, and then a header before 16 bytes of data.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto check = [](std::string_view text, std::uint64_t file_size) {
    for (const safetensors::Entry& entry : safetensors::parse_header(text, file_size).entries)
      if (entry.offset > file_size || static_cast<std::uint64_t>(entry.info.bytes()) > file_size - entry.offset) std::abort();
  };
  try {
    check(bytes.substr(8, safetensors::header_length(bytes.substr(0, 8), size)), size);
  } catch (const qmill::Error&) {
  }
  try {
    check(bytes, 8 + size + 16);
  } catch (const qmill::Error&) {
  }
  return 0;
}
