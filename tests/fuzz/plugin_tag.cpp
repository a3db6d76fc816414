#include "core/src/host/tag.h"
#include "tests/support/temp_dir.h"

#include <qmill/error.h>

#include <fstream>

// The input is a tag's text, and then a file that may hold one.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const qmill::testing::TempDir folder;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    qmill::mismatch(qmill::parse_tag(text), qmill::own_tag());
  } catch (const qmill::Error&) {
  }
  std::ofstream(folder / "plugin.so", std::ios::binary) << text;
  try {
    qmill::read_tag(folder / "plugin.so");
  } catch (const qmill::Error&) {
  }
  return 0;
}
