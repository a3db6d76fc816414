#include "io/text_file.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <fmt/format.h>

namespace qmill {

std::string read_text_file(const std::filesystem::path& file, std::uint64_t max_bytes) {
  const FileReader reader(file);
  if (reader.size() > max_bytes)
    throw Error(ErrorKind::input, fmt::format("it has {} bytes, allowed are {}", reader.size(), max_bytes))
        .in(fmt::format("'{}'", file.string()));
  std::string text(reader.size(), '\0');
  reader.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace qmill
