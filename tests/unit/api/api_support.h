// One call of convert_to_int8 in a folder of its own.
#pragma once

#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"

#include <qmill/compat/convert_to_int8.h>
#include <qmill/core/logging.h>

#include <gmock/gmock.h>

#include <string>

namespace qmill::testing {

class Int8Conversion {
 public:
  explicit Int8Conversion(const std::vector<NamedTensor>& model = {{"a.weight", random_weight(64, 256, at::kBFloat16, 1)},
                                                               {"b.weight", random_weight(32, 128, at::kBFloat16, 2)}}) {
    write_model(path("model.safetensors"), model);
    options.input_file = path("model.safetensors");
    options.output_file = path("out.safetensors");
    options.converter_kwargs = {{"convrot", std::string("off")}, {"threads", std::int64_t{2}}};
  }

  std::string path(const std::string& name) const { return dir / name; }
  std::string write(const std::string& name, const std::vector<NamedTensor>& tensors,
                    const std::map<std::string, std::string>& metadata = {}) {
    write_model(dir / name, tensors, metadata);
    return path(name);
  }

  // What is in the output.
  ModelFile run() {
    ::testing::internal::CaptureStderr();
    try {
      report = convert_to_int8(options);
    } catch (...) {
      log = ::testing::internal::GetCapturedStderr();
      throw;
    }
    log = ::testing::internal::GetCapturedStderr();
    return read_model(options.output_file);
  }
  std::string bytes() {
    run();
    return read_bytes(options.output_file);
  }
  // The same call with something changed.
  template <class Change>
  ModelFile with(Change change) {
    const ConvertToInt8Options before = options;
    change(options);
    try {
      ModelFile result = run();
      options = before;
      return result;
    } catch (...) {
      options = before;
      throw;
    }
  }
  template <class Change>
  std::string bytes_with(Change change) {
    with(change);
    return read_bytes(options.output_file);
  }
  // A figure that the quantizer gave for a layer; NaN: none.
  double statistic(const std::string& layer, const std::string& name) const {
    for (const LayerReport& each : report.layers)
      if (each.quality.name == layer && each.statistics.contains(name)) return each.statistics.at(name);
    return std::numeric_limits<double>::quiet_NaN();
  }

  TempDir dir;
  ConvertToInt8Options options;
  ConvertReport report;
  std::string log;  // of the last run
};

}  // namespace qmill::testing
