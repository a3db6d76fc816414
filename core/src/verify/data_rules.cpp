#include "verify/data_rules.h"

#include "model/finite_values.h"

#include <qmill/error.h>
#include <qmill/numerics/row_kernels.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace qmill {
namespace {

constexpr std::size_t kPart = 8 << 20;

class DataRules {
 public:
  DataRules(const TensorSource& source, Findings& findings, const std::atomic<bool>* cancel)
      : source_(source), findings_(findings), cancel_(cancel) {
    for (std::size_t i = 0; i < source.tensors().size(); ++i) index_.emplace(source.tensors()[i].name, i);
  }

  void check(const MarkedLayer& layer) {
    for (const char* suffix : {"weight_scale", "weight_s_channel", "weight_s_rel", "weight_scale_2"})
      if (const auto scale = layer.others.find(suffix); scale != layer.others.end()) check_scale(layer, *scale->second);
    const auto format = layer.marker.find("format");
    if (format != layer.marker.end() && *format == "int8_tensorwise" && layer.weight != nullptr && layer.weight->dtype == DType::i8)
      check_codes(layer);
  }

  // Values that readers compute with, in any tensor but a scale, which has a rule of its own.
  void check_values(const TensorInfo& tensor) {
    if (!is_floating(tensor.dtype) || scales_.contains(tensor.name)) return;
    std::int64_t count = 0;
    read(tensor, [&](std::span<const std::byte> bytes) { count += count_not_finite(bytes, tensor.dtype); });
    if (count != 0)
      findings_.error("not-finite", tensor.name, fmt::format("{} of its {} values are NaN or infinite", count, tensor.elements()));
  }

 private:
  // Calls body(bytes) for all of a tensor, in parts.
  template <class Body>
  void read(const TensorInfo& tensor, Body body) {
    const auto bytes = static_cast<std::uint64_t>(tensor.bytes());
    for (std::uint64_t begin = 0; begin < bytes; begin += kPart) {
      if (cancel_ != nullptr && *cancel_) throw Error(ErrorKind::cancelled, "interrupted");
      buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPart, bytes - begin)));
      source_.read_part(index_.at(tensor.name), begin, buffer_);
      body(std::span<const std::byte>(buffer_));
    }
  }

  void check_scale(const MarkedLayer& layer, const TensorInfo& scale) {
    scales_.insert(scale.name);
    if (scale.dtype == DType::f8_e4m3 || scale.dtype == DType::u8 || scale.dtype == DType::f8_e8m0) return check_short_scale(layer, scale);
    if (scale.dtype != DType::f32 && scale.dtype != DType::f16 && scale.dtype != DType::bf16) return;
    const std::size_t element = static_cast<std::size_t>(dtype_bits(scale.dtype)) / 8;
    std::size_t not_finite = 0;
    std::size_t not_positive = 0;
    read(scale, [&](std::span<const std::byte> bytes) {
      values_.resize(bytes.size() / element);
      load_f32(bytes.data(), scale.dtype, static_cast<std::int64_t>(values_.size()), values_.data());
      for (const float value : values_) {
        if (!std::isfinite(value))
          ++not_finite;
        else if (value <= 0)
          ++not_positive;
      }
    });
    if (not_finite + not_positive != 0)
      findings_.error("scale-value", layer.base,
                      fmt::format("of the {} values of '{}' {} are not finite and {} not positive", scale.elements(), scale.name,
                                  not_finite, not_positive));
  }

  // E4M3, also stored as U8, or powers of two. Zero is that of blocks of zeros.
  void check_short_scale(const MarkedLayer& layer, const TensorInfo& scale) {
    const auto format = layer.marker.find("format");
    const bool is_power = format != layer.marker.end() && *format == "mxfp8";
    const auto is_bad = [is_power](std::byte value) {
      const auto bits = std::to_integer<unsigned>(value);
      return is_power ? bits == 0xff : bits >= 0x7f;  // NaN; of E4M3 also what is negative
    };
    std::int64_t bad = 0;
    read(scale, [&](std::span<const std::byte> bytes) { bad += std::count_if(bytes.begin(), bytes.end(), is_bad); });
    if (bad != 0)
      findings_.error("scale-value", layer.base,
                      fmt::format("of the {} values of '{}' {} are NaN or negative", scale.elements(), scale.name, bad));
  }

  void check_codes(const MarkedLayer& layer) {
    std::size_t lowest = 0;
    read(*layer.weight, [&](std::span<const std::byte> bytes) {
      lowest += static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), std::byte{0x80}));
    });
    if (lowest != 0)
      findings_.remark("code-range", layer.base,
                       fmt::format("{} of its codes are -128: readers accept them, but most programs do not write them", lowest));
  }

  const TensorSource& source_;
  Findings& findings_;
  const std::atomic<bool>* cancel_;
  std::map<std::string, std::size_t> index_;
  std::set<std::string> scales_;
  std::vector<std::byte> buffer_;
  std::vector<float> values_;
};

}  // namespace

void check_data(const TensorSource& source, const std::vector<MarkedLayer>& layers, Findings& findings, const std::atomic<bool>* cancel) {
  DataRules rules(source, findings, cancel);
  for (const MarkedLayer& layer : layers) rules.check(layer);
  for (const TensorInfo& tensor : source.tensors()) rules.check_values(tensor);
}

}  // namespace qmill
