#include <qmill/core/decoded_source.h>

#include "model/source_checks.h"
#include "host/guard.h"

#include <qmill/names.h>
#include <qmill/numerics/row_kernels.h>
#include <qmill/source_details.h>

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <span>

namespace qmill {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// Of a layer in memory.
struct Loaded {
  std::vector<at::Tensor> stored;  // in the order of StoredFormat::outputs()
  std::vector<float> values;       // of a format whose rows depend on each other; else empty
};

class DecodedSource final : public TensorSource, public SourceDetails {
 public:
  DecodedSource(const Host& host, std::unique_ptr<TensorSource> source) : source_(std::move(source)) {
    std::map<std::string, std::size_t> index;
    for (std::size_t i = 0; i < source_->tensors().size(); ++i) index.emplace(source_->tensors()[i].name, i);
    std::set<std::string> hidden;
    std::map<std::string, std::size_t> layer_of;
    for (StoredLayerEntry& entry : stored_layers(host, *source_)) {
      require_known(entry);
      if (!is_quantized(entry)) continue;
      require_complete(entry);
      layer_of.emplace(entry.info.weight.name, layers_.size());
      add(std::move(entry), index, hidden);
    }
    for (std::size_t i = 0; i < source_->tensors().size(); ++i) {
      const TensorInfo& tensor = source_->tensors()[i];
      const auto layer = layer_of.find(tensor.name);
      if (layer != layer_of.end()) {
        tensors_.push_back(decoded_[layer->second]);
        places_.push_back({i, layer->second});
      } else if (!hidden.contains(tensor.name) && !is_file_marker(tensor.name)) {
        tensors_.push_back(tensor);
        places_.push_back({i, kNone});
      }
    }
    for (const auto& [key, value] : source_->metadata())
      // What was recorded of the quantization is no longer true.
      if (key != "_quantization_metadata" && (layers_.empty() || !key.starts_with("qmill."))) metadata_.emplace(key, value);
  }

  const std::vector<StoredLayerEntry>& layers() const { return layers_; }

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return source_->files(); }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    const Place& place = places_[index];
    if (place.layer == kNone) return source_->read_part(place.source, begin, out);
    if (out.empty()) return;
    const std::shared_ptr<const Loaded> loaded = load(place.layer);
    if (!loaded->values.empty()) {
      std::memcpy(out.data(), reinterpret_cast<const std::byte*>(loaded->values.data()) + begin, out.size());
      return;
    }
    decode_part(place.layer, *loaded, begin, out);
  }

  std::optional<Extent> extent(std::size_t index) const override {
    const Place& place = places_[index];
    return place.layer == kNone ? source_->extent(place.source) : std::nullopt;
  }

  void prefetch(std::size_t index) const override {
    const Place& place = places_[index];
    if (place.layer == kNone) return source_->prefetch(place.source);
    for (const std::size_t stored : stored_[place.layer]) source_->prefetch(stored);
  }

  std::string stored_type(std::size_t index) const override { return qmill::stored_type(*source_, places_[index].source); }
  std::vector<std::string> remarks() const override { return source_remarks(*source_); }

 private:
  struct Place {
    std::size_t source;  // index there
    std::size_t layer;   // index in layers_, or kNone
  };

  static void require_known(const StoredLayerEntry& entry) {
    if (entry.format == nullptr && !entry.info.marker.empty())
      throw Error(ErrorKind::unsupported,
                  fmt::format("layer '{}' is stored as '{}', which no format here decodes", entry.info.base, entry.label.name),
                  "use the original model, or a plugin that knows the format");
  }

  // A reader that multiplies the inputs, too, computes with another weight than the one that is decoded, unless the format decodes it so.
  static void require_complete(const StoredLayerEntry& entry) {
    const std::vector<TensorInfo> read = entry.format->outputs(entry.format->original(entry.info, entry.layout), entry.layout);
    const auto is_read = [&](const TensorInfo& other) {
      return std::any_of(read.begin(), read.end(), [&](const TensorInfo& one) { return one.name == other.name; });
    };
    for (const TensorInfo& other : entry.info.others)
      for (const std::string_view suffix : {".pre_quant_scale", ".smooth_factors"})
        if (other.name == entry.info.base + std::string(suffix) && !is_read(other))
          throw Error(ErrorKind::unsupported,
                      fmt::format("the inputs of layer '{}' are multiplied by '{}', which a decoded weight cannot contain", entry.info.base,
                                  other.name),
                      "use the original model");
  }

  static bool is_file_marker(const std::string& name) { return name == "scaled_fp8" || name.ends_with(".scaled_fp8"); }

  void add(StoredLayerEntry entry, const std::map<std::string, std::size_t>& index, std::set<std::string>& hidden) {
    const StoredFormat& format = *entry.format;
    TensorInfo weight = format.original(entry.info, entry.layout);
    weight.dtype = DType::f32;
    std::vector<std::size_t>& stored = stored_.emplace_back();
    for (const TensorInfo& output : format.outputs(weight, entry.layout)) {
      hidden.insert(output.name);
      // A marker may stand in the header alone, or be implied.
      if (const auto found = index.find(output.name); found != index.end()) stored.push_back(found->second);
    }
    for (const char* suffix : {".comfy_quant", ".input_scale", ".scale_input"}) hidden.insert(entry.info.base + suffix);
    decoded_.push_back(std::move(weight));
    layers_.push_back(std::move(entry));
  }

  // The latest layer is kept: a tensor is read in parts, one after the other or at once.
  std::shared_ptr<const Loaded> load(std::size_t layer) const {
    const std::lock_guard lock(mutex_);
    if (!latest_ || latest_layer_ != layer) {
      latest_.reset();
      auto loaded = std::make_shared<Loaded>();
      for (const std::size_t stored : stored_[layer]) {
        const TensorInfo& info = source_->tensors()[stored];
        at::Tensor tensor = at::empty(info.shape, scalar_type(info.dtype));
        source_->read(stored, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
        loaded->stored.push_back(std::move(tensor));
      }
      if (!layers_[layer].format->info().rows_independent) {
        loaded->values.resize(static_cast<std::size_t>(decoded_[layer].elements()));
        decode(layer, loaded->stored, 0, decoded_[layer].shape[0], loaded->values);
      }
      latest_ = std::move(loaded);
      latest_layer_ = layer;
    }
    return latest_;
  }

  void decode_unchecked(std::size_t layer, const std::vector<at::Tensor>& stored, std::int64_t begin, std::int64_t end, float* out) const {
    const StoredLayerEntry& entry = layers_[layer];
    guard(entry.format->info().name, "decode", decoded_[layer].name,
          [&] { entry.format->decode_rows(stored, entry.layout, begin, end, out); });
  }

  // `out` has the size of the rows.
  void decode(std::size_t layer, const std::vector<at::Tensor>& stored, std::int64_t begin, std::int64_t end, std::span<float> out) const {
    decode_unchecked(layer, stored, begin, end, out.data());
    if (!std::isfinite(largest_magnitude(out.data(), static_cast<std::int64_t>(out.size())))) reject_values(layer, stored);
  }

  // Counts in all rows, one after the other.
  [[noreturn]] void reject_values(std::size_t layer, const std::vector<at::Tensor>& stored) const {
    const TensorInfo& weight = decoded_[layer];
    const std::int64_t step = layers_[layer].format->info().rows_independent ? 1 : weight.shape[0];
    std::vector<float> values(static_cast<std::size_t>(step * (weight.elements() / weight.shape[0])));
    std::int64_t count = 0;
    for (std::int64_t row = 0; row < weight.shape[0]; row += step) {
      decode_unchecked(layer, stored, row, row + step, values.data());
      count += std::count_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
    }
    throw Error(ErrorKind::numeric, fmt::format("{} of {} values are not finite once they are decoded", count, weight.elements()),
                "its scales or codes are damaged, as qmill verify FILE may say; use the original model")
        .in(fmt::format("tensor '{}'", weight.name));
  }

  void decode_part(std::size_t layer, const Loaded& loaded, std::uint64_t begin, std::span<std::byte> out) const {
    constexpr std::uint64_t kStepBytes = 64 << 10;  // stay in the cache from decoding to copying
    const TensorInfo& weight = decoded_[layer];
    const auto rows = static_cast<std::uint64_t>(weight.shape[0]);
    const std::uint64_t row_bytes = static_cast<std::uint64_t>(weight.bytes()) / rows;
    const std::uint64_t step = std::max<std::uint64_t>(1, kStepBytes / row_bytes);
    std::vector<float> values;
    while (!out.empty()) {
      const std::uint64_t first = begin / row_bytes;
      const std::uint64_t last = std::min({first + step, (begin + out.size() + row_bytes - 1) / row_bytes, rows});
      values.resize((last - first) * row_bytes / sizeof(float));
      decode(layer, loaded.stored, static_cast<std::int64_t>(first), static_cast<std::int64_t>(last), values);
      const std::uint64_t from = begin - first * row_bytes;
      const std::size_t count = std::min<std::uint64_t>((last - first) * row_bytes - from, out.size());
      std::memcpy(out.data(), reinterpret_cast<const std::byte*>(values.data()) + from, count);
      out = out.subspan(count);
      begin += count;
    }
  }

  const std::unique_ptr<TensorSource> source_;
  std::vector<StoredLayerEntry> layers_;
  std::vector<TensorInfo> decoded_;               // by layer
  std::vector<std::vector<std::size_t>> stored_;  // by layer: indexes in source_
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;
  std::map<std::string, std::string> metadata_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Loaded> latest_;
  mutable std::size_t latest_layer_ = 0;
};

}  // namespace

std::unique_ptr<TensorSource> decoded(const Host& host, std::unique_ptr<TensorSource> source) {
  refuse_foreign_quantizers(*source);
  auto result = std::make_unique<DecodedSource>(host, std::move(source));
  if (const std::string evidence = quantization_evidence(*result); !evidence.empty())
    throw Error(ErrorKind::unsupported, fmt::format("it is quantized in a way that no format here decodes: {}", evidence),
                "use the original model");
  return result;
}

std::vector<StoredLayerEntry> decoded_layers(const TensorSource& source) {
  std::vector<StoredLayerEntry> layers;
  if (const auto* decoded = dynamic_cast<const DecodedSource*>(&source)) layers = decoded->layers();
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const std::string type = stored_type(source, i);
    if (type.empty()) continue;
    StoredLayerEntry layer;
    layer.info.weight = source.tensors()[i];
    layer.info.base = layer_base(layer.info.weight.name);
    layer.label.name = layer.label.summary = type;
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::string formats_text(const std::vector<StoredLayerEntry>& layers) {
  std::map<std::string, std::size_t> formats;
  for (const StoredLayerEntry& layer : layers) ++formats[layer.label.name];
  std::string text;
  for (const auto& [name, count] : formats)
    text += fmt::format("{}{}, {} layer{}", text.empty() ? "" : "; ", name, count, count == 1 ? "" : "s");
  return text;
}

}  // namespace qmill
