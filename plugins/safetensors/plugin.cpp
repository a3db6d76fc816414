#include "source.h"

#include <qmill/plugin.h>

#include <fstream>

namespace safetensors {

namespace fs = std::filesystem;

class SafetensorsLoader final : public qmill::Loader {
 public:
  const qmill::LoaderInfo& info() const override {
    static const qmill::LoaderInfo info = {"safetensors",
                                           "a .safetensors file, a .safetensors.index.json, or a folder of shards",
                                           {".safetensors", ".safetensors.index.json"}};
    return info;
  }

  bool probe(const fs::path& path) const override {
    std::error_code ignored;
    if (fs::is_directory(path, ignored) || is_index(path) || path.extension() == ".safetensors") return true;
    if (!fs::is_regular_file(path, ignored)) return false;
    // Named otherwise: the ninth byte opens the header's JSON.
    char first[9] = {};
    std::ifstream file(path, std::ios::binary);
    return file.read(first, sizeof first) && first[8] == '{';
  }

  std::unique_ptr<qmill::TensorSource> open(const fs::path& path) const override {
    if (fs::is_directory(path)) return open_folder(path);
    if (is_index(path)) return open_index(path);
    return open_file(path);
  }
};

}  // namespace safetensors

QMILL_PLUGIN("safetensors", "1.0", QMILL_LOADER("safetensors", safetensors::SafetensorsLoader));
