// Whether a file is still the one that it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace qmill {

struct FileIdentity {
  std::uint64_t device = 0, number = 0;  // where it is: a file that is renamed keeps them
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;  // ns since 1970

  bool operator==(const FileIdentity&) const = default;
};

// Nothing: it is no file that can be looked at.
std::optional<FileIdentity> file_identity(const std::filesystem::path& file);

}  // namespace qmill
