// Markers as they are, also those that are wrong: what edits and verifies cannot stop at the first that is.
#pragma once

#include "io/json_text.h"

#include <qmill/loader.h>

#include <map>
#include <optional>

namespace qmill {

using MarkerJson = nlohmann::ordered_json;

inline constexpr std::string_view kMarkerSuffix = ".comfy_quant";
inline constexpr const char* kHeaderKey = "_quantization_metadata";
inline constexpr std::int64_t kMaxMarkerBytes = 64 << 10;  // the smallest limit among readers

// The tensor LAYER.comfy_quant.
struct RawMarker {
  std::size_t tensor = 0;  // in TensorSource::tensors()
  std::string text;        // empty where the tensor cannot hold one
  MarkerJson json;         // null unless it is an object
  std::string problem;     // why it is no object; empty: it is one
};

// The header's entry about layers.
struct HeaderEntry {
  bool exists = false;
  MarkerJson json;      // the whole entry; json["layers"] is an object
  std::string problem;  // why it is none; empty: it is one, or it does not exist

  bool is_usable() const { return exists && problem.empty(); }
};

// By layer. Reads the tensors; those beyond 1 MiB are not read.
std::map<std::string, RawMarker> raw_markers(const TensorSource& source);

HeaderEntry header_entry(const TensorSource& source);

// The key in json["layers"] that is about this layer: its name, or that without "model.diffusion_model.", which readers take off. Empty:
// there is none.
std::string header_name(const HeaderEntry& header, const std::string& base);

// The tensors of a file by the layer that they are named after. Borrows from the source.
class LayerTensors {
 public:
  using BySuffix = std::map<std::string, const TensorInfo*>;  // "weight_scale": what follows the last dot

  explicit LayerTensors(const TensorSource& source);

  bool has_tensor(const std::string& name) const { return by_name_.contains(name); }
  const BySuffix& of(const std::string& base) const;

  // BASE.weight, or the parameter BASE; null: there is neither.
  const TensorInfo* weight(const std::string& base) const;

  // The layer that a key of the header's "layers" is about: header_name(), the other way round. Where the file has none, the key itself.
  std::string layer_of(const std::string& key) const;

 private:
  std::map<std::string, const TensorInfo*> by_name_;
  std::map<std::string, BySuffix> by_base_;
};

}  // namespace qmill
