#include <qmill/core/edit.h>
#include <qmill/error.h>

#include <nlohmann/json.hpp>

#include <cstdlib>

// What is taken is a JSON object that reads the same again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string json = qmill::parse_added_keys({reinterpret_cast<const char*>(data), size});
    if (!nlohmann::json::parse(json).is_object() || qmill::parse_added_keys(json) != json) std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
