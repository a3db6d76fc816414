#include "io/remove_file.h"

#include <qmill/core/logging.h>

#include <fmt/format.h>

#include <system_error>

namespace qmill {

void remove_file(const std::filesystem::path& file) noexcept try {
  std::error_code error;
  std::filesystem::remove(file, error);
  if (error) log(LogLevel::minimal, fmt::format("warning: '{}' is left: cannot remove it: {}", file.string(), error.message()));
} catch (...) {  // no memory for the message
}

}  // namespace qmill
