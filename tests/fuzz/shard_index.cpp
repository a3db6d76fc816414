#include <qmill/error.h>
#include <qmill/shards.h>

#include <cstdlib>

// The input is the text of an index, and then the name of a file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::filesystem::path folder = "models";
  try {
    for (const std::filesystem::path& file : qmill::parse_shard_index(text, folder / "m.safetensors.index.json").files())
      if (file.parent_path() != folder || file.native().find('\0') != std::string::npos) std::abort();
  } catch (const qmill::Error&) {
  }
  if (const std::optional<qmill::ShardName> name = qmill::parse_shard_name(text))
    if (name->number < 0 || name->count < 0 || name->stem.size() + name->ending.size() >= text.size()) std::abort();
  return 0;
}
