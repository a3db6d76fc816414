#include "source.h"

#include <qmill/plugin.h>

#include <algorithm>
#include <fstream>
#include <string_view>

namespace pytorch {

class PytorchLoader final : public qmill::Loader {
 public:
  const qmill::LoaderInfo& info() const override {
    static const qmill::LoaderInfo info = {
        "pytorch", "a file of torch.save: .pt, .pth, .ckpt, .bin (no code in it is run)", {".pt", ".pth", ".ckpt", ".bin"}};
    return info;
  }

  bool probe(const std::filesystem::path& path) const override {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) return false;
    if (is_index(path)) return true;
    char first[4] = {};
    std::ifstream file(path, std::ios::binary);
    if (!file.read(first, sizeof first)) return false;
    if (std::string_view(first, sizeof first) == std::string_view("PK\x03\x04", 4)) return true;
    // A pickle: open() says why it is not read.
    const std::vector<std::string>& names = info().extensions;
    return first[0] == '\x80' && std::find(names.begin(), names.end(), path.extension()) != names.end();
  }

  std::unique_ptr<qmill::TensorSource> open(const std::filesystem::path& path) const override { return open_model(path); }
};

}  // namespace pytorch

QMILL_PLUGIN("pytorch", "1.0", QMILL_LOADER("pytorch", pytorch::PytorchLoader));
