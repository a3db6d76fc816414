#include <qmill/core/compare.h>

#include "calibration/calibration.h"
#include "model/value_source.h"
#include "report/measure.h"
#include "report/rounded.h"

#include <qmill/core/stored_layers.h>
#include <qmill/error.h>

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

namespace qmill {
namespace {

std::map<std::string, std::size_t> index_of(const TensorSource& source) {
  std::map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) index.emplace(source.tensors()[i].name, i);
  return index;
}

at::Tensor decoded_weight(const TensorInfo& info, const RowDecoder& rows) {
  at::Tensor weight = at::empty(info.shape, at::kFloat);
  rows(0, info.shape[0], weight.mutable_data_ptr<float>());
  return weight;
}

// On all rows of the layer, some at a time; of weights that were decoded before. Who made the file, and from which rows, is not known: plain
// rounding is always made anew.
OutputSums measure_outputs(const Calibration& calibration, const TensorInfo& info, const at::Tensor& weight, const RowDecoder& stored,
                           const StoredLayerEntry& entry, const RunResources& resources) {
  std::vector<RowDecoder> versions = {plain_rows(decoded_weight(info, stored))};
  if (const CodedFormat* coded = as_coded(*entry.format))
    versions.push_back(plain_rows(decoded_weight(info, rounded_rows(info, weight, *coded, entry.layout, resources))));
  OutputSums sums;
  calibration.visit_rows(info, resources,
                         [&](const at::Tensor& rows) { sums.merge(measure(weight, versions, {.rows = rows}, resources.tasks).outputs); });
  return sums;
}

}  // namespace

std::vector<LayerQuality> compare_models(const Host& host, const TensorSource& quantized, const TensorSource& source, int threads,
                                         const std::atomic<bool>* cancel, const std::filesystem::path& calibration_data) {
  constexpr std::uint64_t kPoolBytes = 256u << 20;
  TaskPool tasks(threads);
  const auto buffers = std::make_shared<BufferPool>(kPoolBytes);
  const std::map<std::string, std::size_t> stored_index = index_of(quantized);
  const std::map<std::string, std::size_t> source_index = index_of(source);
  const RunResources resources{tasks, *buffers, cancel};
  std::optional<Calibration> calibration;
  if (!calibration_data.empty()) calibration.emplace(host, source, CalibrationOptions{.data = calibration_data}, 0);
  std::vector<LayerQuality> qualities;
  const TensorInfo* alike = nullptr;  // a quantized layer of the same type in both
  for (const StoredLayerEntry& entry : stored_layers(host, quantized)) {
    if (cancel != nullptr && *cancel) throw Error(ErrorKind::cancelled, "interrupted");
    const TensorInfo& weight = entry.info.weight;
    if (entry.format == nullptr && !entry.info.marker.empty())
      throw Error(ErrorKind::unsupported,
                  fmt::format("layer '{}' is stored as '{}', which no plugin decodes", entry.info.base, entry.label.name));
    if (entry.format == nullptr) continue;
    const auto original = source_index.find(weight.name);
    if (original == source_index.end())
      throw Error(ErrorKind::input, fmt::format("the source has no tensor '{}'", weight.name),
                  "compare a file with the model that it was made from");
    const TensorInfo& original_info = source.tensors()[original->second];
    if (original_info.dtype == weight.dtype) {  // as it was
      if (is_quantized(entry)) alike = &original_info;
      continue;
    }
    const TensorInfo decoded = entry.format->original(entry.info, entry.layout);
    if (original_info.shape != decoded.shape || !is_floating(original_info.dtype))
      throw Error(ErrorKind::input,
                  fmt::format("tensor '{}' is {} {} in the source, expected a floating {}", weight.name, dtype_name(original_info.dtype),
                              original_info.shape_text(), decoded.shape_text()),
                  "compare a file with the model that it was made from");
    std::vector<at::Tensor> tensors;
    for (const TensorInfo& stored : entry.format->outputs(decoded, entry.layout)) {
      const auto found = stored_index.find(stored.name);
      // A marker may stand in the header alone.
      if (found != stored_index.end()) tensors.push_back(read_tensor(quantized, found->second, *buffers, tasks));
    }
    const at::Tensor values = read_tensor(source, original->second, *buffers, tasks);
    const RowDecoder rows = stored_rows(tensors, decoded, *entry.format, entry.layout);
    LayerQuality& quality = qualities.emplace_back(layer_quality(entry.info.base, entry.label, measure(values, {&rows, 1}, {}, tasks).values));
    if (calibration && calibration->has_rows(original_info))
      set_output_error(quality, measure_outputs(*calibration, original_info, values, rows, entry, resources), false);
  }
  if (qualities.empty() && alike != nullptr)
    throw Error(ErrorKind::input,
                fmt::format("the quantized layers of the first file have the same types in the second: '{}' is {} in both",
                            alike->name, dtype_name(alike->dtype)),
                "compare a file with the model that it was made from");
  if (qualities.empty()) throw Error(ErrorKind::input, "no layer of the first file is quantized");
  const auto has_outputs = [](const LayerQuality& quality) { return quality.output_error.has_value(); };
  if (calibration && std::none_of(qualities.begin(), qualities.end(), has_outputs))
    throw Error(ErrorKind::input, fmt::format("'{}' has sample rows for none of its layers", calibration_data.string()),
                "give a file with LAYER.input [rows, columns]");
  return qualities;
}

}  // namespace qmill
