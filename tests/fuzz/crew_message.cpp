// What another rank of a run sends: read, or refused; never a crash.
#include "core/src/run/crew_message.h"

#include <qmill/error.h>

#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string text = qmill::crew_text(qmill::parse_crew_message(std::string(reinterpret_cast<const char*>(data), size)));
    if (qmill::crew_text(qmill::parse_crew_message(text)) != text) std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
