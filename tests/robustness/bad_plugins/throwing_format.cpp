// A format that works, but for the function that QMILL_TEST_THROW names: that one throws.
#include <qmill/error.h>
#include <qmill/plugin.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace {

using namespace qmill;

// "outputs": an exception of the standard library; "outputs int": no exception at all.
void maybe_throw(std::string_view function) {
  const char* named = std::getenv("QMILL_TEST_THROW");
  if (named == nullptr) return;
  const std::string_view name = named;
  if (name == function) throw std::runtime_error("out of luck");
  if (name.starts_with(function) && name.substr(function.size()) == " int") throw 42;
}

const CodedFormat& int8() { return *as_coded(*builtin_formats()[0]); }

class ThrowingFormat final : public CodedFormat {
 public:
  const FormatInfo& info() const override {
    maybe_throw("info");
    static const FormatInfo info = {"bad.format", {}, "int8 by another name", true};
    return info;
  }
  std::vector<Scaling> scalings(std::string_view name) const override {
    maybe_throw("scalings");
    return int8().scalings(name);
  }
  bool can_rotate(Scaling scaling) const override {
    maybe_throw("can_rotate");
    return int8().can_rotate(scaling);
  }
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const override {
    maybe_throw("layout");
    if (wanted.naming == Naming::legacy) throw Error(ErrorKind::usage, "bad.format has no legacy names");
    return int8().layout(weight, wanted);
  }
  std::string misfit(const TensorInfo&, const StorageOptions&) const override {
    maybe_throw("misfit");
    return {};
  }
  FormatLabel label(const Layout& layout) const override {
    maybe_throw("label");
    FormatLabel label = int8().label(layout);
    label.name = "bad.format";
    label.marker = R"({"format":"bad.format"})";
    return label;
  }
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const override {
    maybe_throw("outputs");
    std::vector<TensorInfo> outputs = int8().outputs(weight, layout);
    outputs[2].shape[0] = static_cast<std::int64_t>(label(layout).marker.size());
    return outputs;
  }
  const Grid& grid() const override {
    maybe_throw("grid");
    static const Grid descending = {-1, 1, {1, 0, -1}};
    const char* named = std::getenv("QMILL_TEST_THROW");
    return named != nullptr && named == std::string_view("grid descends") ? descending : int8().grid();
  }
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override {
    maybe_throw("encode");
    std::vector<StoredTensor> stored = int8().encode(coded, weight, layout);
    const std::string marker = label(layout).marker;
    stored[2].data = stored[2].data.narrow(0, 0, static_cast<std::int64_t>(marker.size())).clone();
    std::copy(marker.begin(), marker.end(), static_cast<char*>(stored[2].data.mutable_data_ptr()));
    return stored;
  }
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const override {
    maybe_throw("recognise");
    if (layer.marker != R"({"format":"bad.format"})") return std::nullopt;
    StoredLayerInfo as_int8 = layer;
    as_int8.marker = R"({"format":"int8_tensorwise"})";
    return int8().recognise(as_int8);
  }
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const override {
    maybe_throw("original");
    return int8().original(layer, layout);
  }
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end,
                   float* out) const override {
    maybe_throw("decode");
    int8().decode_rows(tensors, layout, begin, end, out);
  }
};

}  // namespace

QMILL_PLUGIN("throwing_format", "1.0", QMILL_FORMAT("bad.format", ThrowingFormat));
