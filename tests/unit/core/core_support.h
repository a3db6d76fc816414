// Shorthands of the tests of core.
#pragma once

#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"
#include "test_host.h"

#include <qmill/core/convert.h>

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace qmill::testing {

// U8, one-dimensional: as files hold markers.
inline at::Tensor bytes_of(std::string_view text) {
  at::Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

inline std::string text_of(const at::Tensor& bytes) { return {static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()}; }

// The marker of a layer with a scale per row.
inline const std::string kRowMarker = R"({"format":"int8_tensorwise"})";

// One conversion in a folder of its own.
struct Job {
  Job() {
    options.input = dir / "in.safetensors";
    options.output = dir / "out.safetensors";
    options.run.threads = 2;
    options.run.sync = false;
  }
  explicit Job(const std::vector<NamedTensor>& tensors, const std::map<std::string, std::string>& metadata = {}) : Job() {
    write_model(options.input, tensors, metadata);
  }

  Plan plan() {
    source = host().open(options.input);
    return make_plan(host(), *source, options);
  }
  ConvertReport run(const RunHooks& hooks = {}) {
    made = plan();
    return run_plan(*source, made, hooks);
  }
  ModelFile output() const { return read_model(options.output); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  TempDir dir;
  ConvertOptions options;
  std::unique_ptr<TensorSource> source;
  Plan made;
};

inline const LayerQuality& quality_of(const std::vector<LayerQuality>& layers, std::string_view name) {
  for (const LayerQuality& layer : layers)
    if (layer.name == name) return layer;
  throw std::runtime_error("no quality of " + std::string(name));
}

inline const Decision& decision_of(const Plan& plan, std::string_view name) {
  for (const Decision& decision : plan.decisions)
    if (decision.source.name == name) return decision;
  throw std::runtime_error("no decision about " + std::string(name));
}

}  // namespace qmill::testing
