#include "host/guarded_format.h"

#include "host/guard.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace qmill {
namespace {

template <class Role>
class Guarded : public Role {
 public:
  Guarded(std::unique_ptr<const StoredFormat> owned, const Role& format, const FormatInfo& info)
      : owned_(std::move(owned)), format_(format), info_(info) {}

  const FormatInfo& info() const final { return info_; }
  FormatLabel label(const Layout& layout) const final {
    return call("label", "", [&] { return format_.label(layout); });
  }
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout& layout) const final {
    return call("outputs", weight.name, [&] { return format_.outputs(weight, layout); });
  }
  std::optional<Layout> recognise(const StoredLayerInfo& layer) const final {
    return call("recognise", layer.weight.name, [&] { return format_.recognise(layer); });
  }
  TensorInfo original(const StoredLayerInfo& layer, const Layout& layout) const final {
    return call("original", layer.weight.name, [&] { return format_.original(layer, layout); });
  }
  void decode_rows(std::span<const at::Tensor> tensors, const Layout& layout, std::int64_t begin, std::int64_t end, float* out) const final {
    call("decode", "", [&] { format_.decode_rows(tensors, layout, begin, end, out); });
  }

 protected:
  template <class Function>
  auto call(std::string_view what, std::string_view tensor, Function function) const {
    return guard(info_.name, what, tensor, function);
  }
  const Role& format() const { return format_; }

 private:
  const std::unique_ptr<const StoredFormat> owned_;
  const Role& format_;
  const FormatInfo info_;
};

template <class Role>
class GuardedWritable : public Guarded<Role> {
 public:
  using Guarded<Role>::Guarded;

  std::vector<Scaling> scalings(std::string_view name) const final {
    return this->call("scalings", "", [&] { return this->format().scalings(name); });
  }
  bool can_rotate(Scaling scaling) const final {
    return this->call("can_rotate", "", [&] { return this->format().can_rotate(scaling); });
  }
  Layout layout(const TensorInfo& weight, const StorageOptions& wanted) const final {
    return answer("layout", weight, [&] { return this->format().layout(weight, wanted); });
  }
  std::string misfit(const TensorInfo& weight, const StorageOptions& wanted) const final {
    return answer("misfit", weight, [&] { return this->format().misfit(weight, wanted); });
  }

 private:
  // An Error about a wish is what the format has to say to the person, and needs no plugin in front of it.
  template <class Function>
  auto answer(std::string_view what, const TensorInfo& weight, Function function) const -> decltype(function()) {
    std::optional<Error> refusal;
    std::optional<decltype(function())> result = this->call(what, weight.name, [&]() -> std::optional<decltype(function())> {
      try {
        return function();
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::usage && error.kind() != ErrorKind::unsupported) throw;
        refusal = error;
        return std::nullopt;
      }
    });
    if (refusal) throw *refusal;
    return *std::move(result);
  }
};

class GuardedCoded final : public GuardedWritable<CodedFormat> {
 public:
  GuardedCoded(std::unique_ptr<const StoredFormat> owned, const CodedFormat& format, const FormatInfo& info)
      : GuardedWritable(std::move(owned), format, info), grid_(call("grid", "", [&] { return std::cref(format.grid()); })) {
    const std::int64_t codes = std::int64_t{grid_.highest} - grid_.lowest + 1;
    constexpr int kLowest = std::numeric_limits<std::int8_t>::min(), kHighest = std::numeric_limits<std::int8_t>::max();
    const bool fits = grid_.lowest >= kLowest && grid_.highest <= kHighest && codes > 1;
    const bool is_table = !grid_.values.empty();
    // Every comparison with NaN is false.
    const auto ascends = [&](float a, float b) { return std::isfinite(a) && std::isfinite(b) && a < b; };
    bool is_ascending = true;
    for (std::size_t i = 1; i < grid_.values.size(); ++i) is_ascending = is_ascending && ascends(grid_.values[i - 1], grid_.values[i]);
    if (!fits || (is_table && (static_cast<std::int64_t>(grid_.values.size()) != codes || !is_ascending)) || !(grid_.largest() > 0))
      throw Error(ErrorKind::plugin,
                  fmt::format("the grid of its format '{}' has codes from {} to {} and {} values; expected 8-bit codes, and none or as many "
                              "ascending values, the last one positive",
                              info.name, grid_.lowest, grid_.highest, grid_.values.size()));
  }

  const Grid& grid() const override { return grid_; }
  std::vector<StoredTensor> encode(const CodedWeight& coded, const TensorInfo& weight, const Layout& layout) const override {
    return call("encode", weight.name, [&] { return format().encode(coded, weight, layout); });
  }

 private:
  const Grid& grid_;
};

}  // namespace

std::unique_ptr<const StoredFormat> guarded_format(std::unique_ptr<const StoredFormat> format) {
  const FormatInfo& info = format->info();
  const StoredFormat& stored = *format;
  if (const CodedFormat* coded = as_coded(stored)) return std::make_unique<GuardedCoded>(std::move(format), *coded, info);
  if (const WritableFormat* writable = as_writable(stored))
    return std::make_unique<GuardedWritable<WritableFormat>>(std::move(format), *writable, info);
  return std::make_unique<Guarded<StoredFormat>>(std::move(format), stored, info);
}

}  // namespace qmill
