#include "source.h"

#include <qmill/plugin.h>

#include <fstream>
#include <string_view>

namespace gguf {

class GgufLoader final : public qmill::Loader {
 public:
  const qmill::LoaderInfo& info() const override {
    static const qmill::LoaderInfo info = {
        "gguf", "a GGUF file, or any part of a split one; quantized types are decoded (docs/sources.md)", {".gguf"}};
    return info;
  }

  bool probe(const std::filesystem::path& path) const override {
    if (path.extension() == ".gguf") return true;
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) return false;
    char first[4] = {};
    std::ifstream file(path, std::ios::binary);
    return file.read(first, sizeof first) && std::string_view(first, sizeof first) == "GGUF";
  }

  std::unique_ptr<qmill::TensorSource> open(const std::filesystem::path& path) const override { return open_model(path); }
};

}  // namespace gguf

QMILL_PLUGIN("gguf", "1.0", QMILL_LOADER("gguf", gguf::GgufLoader));
