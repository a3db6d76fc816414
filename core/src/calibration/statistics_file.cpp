// Statistics of sample rows, written like a model: complete under its name, or not there.
#include "io/output_file.h"
#include "io/destination.h"
#include <qmill/core/output_plan.h>
#include "engine/resources.h"
#include "calibration/calibration_file.h"
#include "model/content_hash.h"
#include "calibration/input_rows.h"

#include <qmill/core/calibration.h>
#include <qmill/error.h>
#include <qmill/version.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace qmill {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostColumns = 1 << 20;  // a Hessian of more would have 4 TB

struct SampledLayer {
  std::string name;
  std::size_t tensor = 0;
};

std::vector<SampledLayer> sampled_layers(const CalibrationFile& file, StatisticsReport& report) {
  std::vector<SampledLayer> layers;
  report.unmatched_entries = file.unknown();
  report.empty_entries = file.empty();
  for (const CalibrationEntry& entry : file.entries()) {
    for (const auto& [kind, tensor] : entry.tensors)
      if (kind != InputKind::rows) report.unmatched_entries.push_back(file.entry_name(entry, kind));
    if (!entry.has(InputKind::rows)) continue;
    CalibrationEntry rows{entry.layer, {{InputKind::rows, entry.tensors.at(InputKind::rows)}}, {}};
    file.check(rows, std::nullopt);
    const TensorInfo& info = file.source()->tensors()[rows.tensors.at(InputKind::rows)];
    if (info.shape.back() > kMostColumns)
      throw file.located(Error(ErrorKind::unsupported, fmt::format("entry '{}' has {} columns, at most {} have a Hessian", info.name,
                                                                   info.shape.back(), kMostColumns)));
    layers.push_back({entry.layer, rows.tensors.at(InputKind::rows)});
    report.layers.push_back({entry.layer, row_count(info), 0});
  }
  std::sort(layers.begin(), layers.end(), [](const SampledLayer& a, const SampledLayer& b) { return a.name < b.name; });
  std::sort(report.layers.begin(), report.layers.end(), [](const CalibratedRows& a, const CalibratedRows& b) { return a.layer < b.layer; });
  if (!layers.empty()) return layers;
  throw file.located(Error(ErrorKind::input,
                           fmt::format("it has no sample rows{}, expected entries LAYER.input",
                                       report.unmatched_entries.empty() ? "" : fmt::format(" but '{}'", report.unmatched_entries.front())),
                           "capture them as docs/calibration.md shows"));
}

// Layers by equal rows.
std::vector<std::vector<SampledLayer>> groups_of(const CalibrationFile& file, const std::vector<SampledLayer>& layers, TaskPool& tasks) {
  std::map<std::pair<DType, std::vector<std::int64_t>>, std::vector<SampledLayer>> by_shape;
  for (const SampledLayer& layer : layers) {
    const TensorInfo& info = file.source()->tensors()[layer.tensor];
    by_shape[{info.dtype, info.shape}].push_back(layer);
  }
  std::vector<std::vector<SampledLayer>> groups;
  for (const auto& [shape, same] : by_shape) {
    if (same.size() == 1) {
      groups.push_back(same);
      continue;
    }
    std::map<std::string, std::vector<SampledLayer>> by_content;
    for (const SampledLayer& layer : same) by_content[content_hash(*file.source(), layer.tensor, tasks)].push_back(layer);
    for (auto& [hash, group] : by_content) groups.push_back(std::move(group));
  }
  return groups;
}

float input_scale(const InputStatistics& statistics) {
  const float* largest = statistics.channel_max.const_data_ptr<float>();
  return std::max(*std::max_element(largest, largest + statistics.channel_max.numel()) / 127, 1e-30f);
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

class Writer {
 public:
  Writer(const CalibrationFile& file, const StatisticsOptions& options, const RunResources& resources)
      : file_(file), options_(options), resources_(resources), destination_(fs::weakly_canonical(fs::absolute(options.output))) {}

  std::uint64_t write(const std::vector<SampledLayer>& layers) {
    const std::vector<std::vector<SampledLayer>> groups = groups_of(file_, layers, resources_.tasks);
    distinct_ = groups.size();
    return options_.output.extension() == ".json" ? write_json(groups) : write_tensors(layers, groups);
  }

  std::size_t distinct() const { return distinct_; }

 private:
  InputStatistics measure(const SampledLayer& layer, bool with_hessian) const {
    return file_.reading([&] { return measure_inputs(InputRows(*file_.source(), layer.tensor), nullptr, with_hessian, resources_); });
  }

  std::uint64_t write_tensors(const std::vector<SampledLayer>& layers, const std::vector<std::vector<SampledLayer>>& groups) {
    std::vector<TensorInfo> tensors;
    for (const SampledLayer& layer : layers) {
      const std::int64_t columns = file_.source()->tensors()[layer.tensor].shape.back();
      tensors.push_back({layer.name + ".hessian", DType::f32, {columns, columns}});
      for (const char* name : {".mean", ".channel_max", ".channel_mean"}) tensors.push_back({layer.name + name, DType::f32, {columns}});
      tensors.push_back({layer.name + ".input_scale", DType::f32, {}});
    }
    std::map<std::string, std::string> metadata = {{"qmill.version", QMILL_VERSION}};
    if (std::string model = file_.recorded_model(); !model.empty())
      metadata.insert({{"format", std::string(kRecordingFormat)}, {"checkpoint", std::move(model)}});
    const OutputPlan plan = plan_output(std::move(tensors), metadata);
    OutputFile output(destination_, plan.bytes());
    output.write(0, std::as_bytes(std::span(plan.files.front().header)));
    for (const std::vector<SampledLayer>& group : groups) {
      const InputStatistics statistics = measure(group.front(), true);
      const float scale = input_scale(statistics);
      for (const SampledLayer& layer : group) {
        const auto put = [&](const char* name, std::span<const std::byte> bytes) {
          output.write(plan.tensors.at(layer.name + name).offset, bytes);
        };
        put(".hessian", bytes_of(statistics.hessian));
        put(".mean", bytes_of(statistics.mean));
        put(".channel_max", bytes_of(statistics.channel_max));
        put(".channel_mean", bytes_of(statistics.channel_mean));
        put(".input_scale", std::as_bytes(std::span(&scale, 1)));
      }
    }
    output.publish(options_.sync, options_.overwrite);
    return plan.bytes();
  }

  std::uint64_t write_json(const std::vector<std::vector<SampledLayer>>& groups) {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    const auto list = [](const at::Tensor& tensor) {
      const float* data = tensor.const_data_ptr<float>();
      return std::vector<float>(data, data + tensor.numel());
    };
    std::map<std::string, nlohmann::ordered_json> by_layer;
    for (const std::vector<SampledLayer>& group : groups) {
      const InputStatistics statistics = measure(group.front(), false);
      for (const SampledLayer& layer : group)
        by_layer[layer.name] = {{"channel_max", list(statistics.channel_max)},
                                {"channel_mean", list(statistics.channel_mean)},
                                {"input_scale", input_scale(statistics)}};
    }
    for (auto& [layer, statistics] : by_layer) json[layer] = std::move(statistics);
    const std::string text = json.dump() + "\n";
    OutputFile output(destination_, text.size());
    output.write(0, std::as_bytes(std::span(text)));
    output.publish(options_.sync, options_.overwrite);
    return text.size();
  }

  const CalibrationFile& file_;
  const StatisticsOptions& options_;
  const RunResources& resources_;
  const fs::path destination_;
  std::size_t distinct_ = 0;
};

void check_statistics_output(const CalibrationFile& file, const StatisticsOptions& options) {
  require_file_name(options.output);
  const std::string extension = options.output.extension().string();
  if (extension != ".safetensors" && extension != ".json")
    throw Error(
        ErrorKind::usage,
        fmt::format("the output's name ends in '{}', expected .safetensors (everything) or .json (channel statistics only)", extension),
        "choose another `output`")
        .in(fmt::format("'{}'", options.output.string()));
  std::vector<fs::path> inputs = file.source()->files();
  inputs.push_back(options.input);
  require_replaceable(options.output, inputs, options.overwrite);
}

}  // namespace

StatisticsReport write_statistics(const Host& host, const StatisticsOptions& options, const std::atomic<bool>* cancel) {
  const CalibrationFile file(host, options.input);
  if (file.source() == nullptr)
    throw file.located(Error(ErrorKind::input, "a .json file holds statistics already, expected sample rows", "see docs/calibration.md"));
  check_statistics_output(file, options);
  StatisticsReport report;
  const std::vector<SampledLayer> layers = sampled_layers(file, report);
  TaskPool tasks(options.threads);
  std::int64_t largest_part = 0;
  for (const SampledLayer& layer : layers) largest_part = std::max(largest_part, part_bytes(InputRows(*file.source(), layer.tensor)));
  const auto buffers = std::make_shared<BufferPool>(static_cast<std::uint64_t>(largest_part));
  const RunResources resources{tasks, *buffers, cancel};
  Writer writer(file, options, resources);
  report.bytes_written = writer.write(layers);
  report.distinct = writer.distinct();
  return report;
}

}  // namespace qmill
