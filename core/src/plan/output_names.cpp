#include "plan/output_names.h"

#include <qmill/error.h>
#include <qmill/shards.h>

#include <fmt/format.h>

namespace qmill {

namespace fs = std::filesystem;

std::vector<fs::path> shard_files(const fs::path& output, std::size_t count) {
  std::vector<fs::path> files;
  for (std::size_t number = 1; number <= count; ++number)
    files.push_back(output.parent_path() /
                    shard_name_text({output.stem().string(), output.extension().string(), static_cast<std::int64_t>(number), static_cast<std::int64_t>(count)}));
  return files;
}

fs::path index_of(const fs::path& output) { return output.string() + ".index.json"; }

void require_shard_name(const fs::path& output) {
  if (output.extension() != ".safetensors")
    throw Error(ErrorKind::usage, "with `max_shard_size`, expected a name that ends in .safetensors", "add the ending")
        .in(fmt::format("'{}'", output.string()));
  if (parse_shard_name(output.filename().string()))
    throw Error(ErrorKind::usage, "it is the name of a shard, expected that of the model", "leave the numbers out: they are added")
        .in(fmt::format("'{}'", output.string()));
}

}  // namespace qmill
