// Opens every file named *.bad as a model of one layer; the function that QMILL_TEST_THROW names throws.
#include <qmill/error.h>
#include <qmill/plugin.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

namespace {

using namespace qmill;

void maybe_throw(std::string_view function) {
  const char* named = std::getenv("QMILL_TEST_THROW");
  if (named != nullptr && named == function) throw std::runtime_error("out of luck");
}

class ThrowingSource final : public TensorSource {
 public:
  explicit ThrowingSource(std::filesystem::path path) : path_(std::move(path)) {}
  const std::vector<TensorInfo>& tensors() const override {
    maybe_throw("tensors");
    return tensors_;
  }
  const std::map<std::string, std::string>& metadata() const override {
    maybe_throw("metadata");
    return metadata_;
  }
  std::vector<std::filesystem::path> files() const override {
    maybe_throw("files");
    return {path_};
  }
  void read_part(std::size_t, std::uint64_t, std::span<std::byte> out) const override {
    maybe_throw("read");
    std::memset(out.data(), 0, out.size());
  }
  std::optional<Extent> extent(std::size_t) const override {
    maybe_throw("extent");
    return std::nullopt;
  }
  void prefetch(std::size_t) const override { maybe_throw("prefetch"); }

 private:
  const std::filesystem::path path_;
  const std::vector<TensorInfo> tensors_ = {{"l.weight", DType::f32, {16, 32}}, {"other", DType::f32, {3}}};
  const std::map<std::string, std::string> metadata_;
};

class ThrowingLoader final : public Loader {
 public:
  const LoaderInfo& info() const override {
    static const LoaderInfo info = {"bad.loader", "opens *.bad", {".bad"}};
    return info;
  }
  bool probe(const std::filesystem::path& path) const override {
    maybe_throw("probe");
    return path.extension() == ".bad";
  }
  std::unique_ptr<TensorSource> open(const std::filesystem::path& path) const override {
    maybe_throw("open");
    const char* named = std::getenv("QMILL_TEST_THROW");
    if (named != nullptr && named == std::string_view("nothing")) return nullptr;
    if (named != nullptr && named == std::string_view("input")) throw Error(ErrorKind::input, "its third line is empty");
    return std::make_unique<ThrowingSource>(path);
  }
};

}  // namespace

QMILL_PLUGIN("throwing_loader", "1.0", QMILL_LOADER("bad.loader", ThrowingLoader));
