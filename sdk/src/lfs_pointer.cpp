#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace qmill {

void require_no_lfs_pointer(const FileReader& reader) {
  // Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
  constexpr std::string_view kBeginning = "version https://git-lfs";
  std::string beginning(std::min<std::uint64_t>(kBeginning.size(), reader.size()), '\0');
  reader.read(0, std::as_writable_bytes(std::span(beginning)));
  if (beginning == kBeginning)
    throw Error(ErrorKind::input, "it is a Git LFS pointer, not the file itself", "download the real file and try again")
        .in(fmt::format("'{}'", reader.path().string()));
}

}  // namespace qmill
