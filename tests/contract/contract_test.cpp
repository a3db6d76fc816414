// What every quantizer owes, run on all that the host finds.
#include "calibration_stub.h"
#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"
#include "test_context.h"
#include "test_host.h"
#include "threaded_context.h"

#include <qmill/core/convert.h>
#include <qmill/names.h>

#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

namespace qmill {
namespace {

using testing::CalibrationStub;
using testing::correlated_rows;
using testing::host;
using testing::random_weight;
using testing::TempDir;
using testing::TestContext;
using testing::ThreadedContext;

constexpr double kAsGoodAsRounding = 1.001;
constexpr double kAsGoodOnRealInputs = 1.02;  // on other rows than those that it was chosen on

struct Storage {
  const char* name;
  StorageOptions options;
};

// Every layout of a format that a person can ask for.
std::vector<Storage> storages() {
  std::vector<Storage> all = {{"row_rotated", {}}, {"row", {}},   {"rotated_any", {}}, {"tensor", {}},
                              {"axis", {}},        {"block", {}}, {"legacy_row", {}},  {"legacy_tensor", {}}};
  all[1].options.rotation.mode = Rotation::Mode::off;
  all[2].options.rotation.mode = Rotation::Mode::any;
  all[3].options.scaling = Scaling::tensor;
  all[4].options.scaling = Scaling::axis;
  all[5].options.scaling = Scaling::block;
  all[5].options.block_size = 32;
  all[6].options.naming = Naming::legacy;
  all[7].options.naming = Naming::legacy;
  all[7].options.scaling = Scaling::tensor;
  return all;
}

struct Sample {
  const char* name;
  at::Tensor weight;
};

std::vector<Sample> samples() {
  return {{"wide", random_weight(64, 1024, at::kBFloat16, 1)}, {"odd", random_weight(7, 5, at::kFloat, 2)},
          {"one", random_weight(1, 1, at::kFloat, 3)},         {"uneven", random_weight(129, 300, at::kHalf, 4)},
          {"square", random_weight(96, 64, at::kFloat, 5)},    {"zeros", at::zeros({64, 256})}};
}

struct Pair {
  std::string quantizer;
  std::string format;
  Storage storage;

  friend void PrintTo(const Pair& pair, std::ostream* out) { *out << pair.quantizer << " to " << pair.format << " " << pair.storage.name; }
};

// Whether it can be asked for, for a weight that suits every format.
bool takes(const WritableFormat& format, const Storage& storage) {
  try {
    format.layout({"l.weight", DType::f32, {256, 1024}}, storage.options);
    return true;
  } catch (const Error& error) {
    return error.kind() != ErrorKind::usage;
  }
}

// All that decides how a weight is stored.
std::string layout_text(const WritableFormat& format, const Storage& storage) {
  const TensorInfo weight = {"l.weight", DType::f32, {256, 1024}};
  if (!format.misfit(weight, storage.options).empty()) return storage.name;
  const Layout layout = format.layout(weight, storage.options);
  return std::string(scaling_name(layout.scaling)) + " " + std::to_string(layout.tile_columns) + " " + std::to_string(layout.rotation_group) +
         " " + (layout.data == nullptr ? std::string() : layout.data->text());
}

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const Quantizer* quantizer : host().quantizers())
    for (const StoredFormat* stored : host().formats()) {
      const WritableFormat* format = as_writable(*stored);
      if (format == nullptr) continue;
      const auto names = [&](const std::vector<std::string>& formats) {
        return std::any_of(formats.begin(), formats.end(), [&](const std::string& name) { return same_name(name, format->info().name); });
      };
      const QuantizerInfo& info = quantizer->info();
      const bool is_named = names(info.formats) || names(info.own_formats);
      if (!is_named && (!info.formats.empty() || as_coded(*format) == nullptr)) continue;
      std::set<std::string> seen;
      for (const Storage& storage : storages()) {
        if (!takes(*format, storage) || !seen.insert(layout_text(*format, storage)).second) continue;
        all.push_back({quantizer->info().name, format->info().name, storage});
        if (as_coded(*format) == nullptr) break;  // no scales: one layout
      }
    }
  return all;
}

class Contract : public ::testing::TestWithParam<Pair> {
 protected:
  const Quantizer& quantizer() const { return host().quantizer(GetParam().quantizer); }
  const WritableFormat& format() const { return host().format(GetParam().format); }

  // Those that the format stores itself; it stores some in every storage.
  std::vector<Sample> stored_samples() const {
    std::vector<Sample> stored = samples();
    std::erase_if(stored, [&](const Sample& sample) {
      const TensorInfo info = {"l.weight", dtype_of(sample.weight), sample.weight.sizes().vec()};
      return !format().misfit(info, GetParam().storage.options).empty();
    });
    EXPECT_GE(stored.size(), 3u);
    return stored;
  }

  LayerTarget target_for(const TensorInfo& weight) const {
    return {&format(), format().layout(weight, GetParam().storage.options), Options(quantizer().info().options)};
  }
  TestContext context_for(const at::Tensor& weight) const {
    const TensorInfo info = {"l.weight", dtype_of(weight), weight.sizes().vec()};
    return {info, target_for(info)};
  }
};

// Slow and obvious: the sum of squared errors of the nearest values on the grid, with one scale per tile of the stored basis.
double rounding_error(const at::Tensor& weight, const Grid& grid, const Layout& layout) {
  at::Tensor w = weight.to(at::kDouble);
  if (layout.rotation_group != 0) {
    const at::Tensor h4 = at::tensor({1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., 1.}, at::kDouble).view({4, 4}).div(2);
    at::Tensor hadamard = h4;
    while (hadamard.size(0) < layout.rotation_group) hadamard = at::kron(hadamard, h4);
    w = w.view({w.size(0), -1, layout.rotation_group}).matmul(hadamard).reshape(w.sizes()).contiguous();
  }
  const std::int64_t rows = w.size(0), columns = w.size(1);
  const auto* values = w.const_data_ptr<double>();
  const std::int64_t bands = (rows + layout.tile_rows - 1) / layout.tile_rows, tiles = (columns + layout.tile_columns - 1) / layout.tile_columns;
  const auto for_tile = [&](std::int64_t band, std::int64_t tile, const auto& body) {
    for (std::int64_t r = band * layout.tile_rows; r < std::min(rows, (band + 1) * layout.tile_rows); ++r)
      for (std::int64_t c = tile * layout.tile_columns; c < std::min(columns, (tile + 1) * layout.tile_columns); ++c)
        body(values[r * columns + c]);
  };
  const auto for_tiles = [&](const auto& body) {
    for (std::int64_t band = 0; band < bands; ++band)
      for (std::int64_t tile = 0; tile < tiles; ++tile) body(band, tile);
  };
  WishedScales wished{at::zeros({bands, tiles}), at::zeros({bands})};
  for_tiles([&](std::int64_t band, std::int64_t tile) {
    double largest = 0;
    for_tile(band, tile, [&](double value) { largest = std::max(largest, std::fabs(value)); });
    wished.values[band][tile] = std::max(largest / grid.largest(), 1e-30);
    wished.peaks[band] = std::max(largest, wished.peaks[band].item<double>());
  });
  const at::Tensor scales = stored_scales(wished, grid).values;  // of a format that cannot store every scale
  double error = 0;
  for_tiles([&](std::int64_t band, std::int64_t tile) {
    const double scale = scales[band][tile].item<double>();
    for_tile(band, tile, [&](double value) {
      double best = std::numeric_limits<double>::infinity();
      for (int code = grid.lowest; code <= grid.highest; ++code) best = std::min(best, std::fabs(value - grid.value(code) * scale));
      error += best * best;
    });
  });
  return error;
}

at::Tensor decode(const TensorInfo& weight, const StoredLayer& stored, const StoredFormat& format, const Layout& layout) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored.tensors) tensors.push_back(tensor.data);
  at::Tensor decoded = at::zeros(weight.shape, at::kFloat);
  format.decode_rows(tensors, layout, 0, weight.shape[0], decoded.mutable_data_ptr<float>());
  return decoded.to(at::kDouble);
}

double decode_error(const at::Tensor& weight, const StoredLayer& stored, const StoredFormat& format, const Layout& layout) {
  const at::Tensor decoded = decode(info_of({"l.weight", weight}), stored, format, layout);
  return weight.to(at::kDouble).sub(decoded).square().sum().item<double>();
}

// The squared error of the outputs for these inputs.
double output_error(const at::Tensor& weight, const at::Tensor& decoded, const at::Tensor& rows) {
  return weight.to(at::kDouble).sub(decoded).matmul(rows.to(at::kDouble).t()).square().sum().item<double>();
}

// What plain rounding makes of it: in the same format, or in INT8 where codes are not all that is stored.
at::Tensor plainly_rounded(const at::Tensor& weight, const WritableFormat& format, const StorageOptions& storage) {
  const bool is_coded = as_coded(format) != nullptr;
  const WritableFormat& yardstick = is_coded ? format : host().format("int8");
  const TensorInfo info = info_of({"l.weight", weight});
  TestContext context(info, {&yardstick, yardstick.layout(info, is_coded ? storage : StorageOptions{}), {}});
  return decode(info, host().quantizer("rtn").quantize(weight, context), yardstick, context.target().layout);
}

void expect_as_good_as_rounding(const std::map<std::string, double>& statistics) {
  ASSERT_TRUE(statistics.contains("objective") && statistics.contains("objective_rtn"));
  EXPECT_LE(statistics.at("objective"), statistics.at("objective_rtn") * (1 + 1e-9));
}

void expect_as_planned(const StoredLayer& stored, const std::vector<TensorInfo>& planned) {
  ASSERT_EQ(stored.tensors.size(), planned.size());
  for (std::size_t i = 0; i < planned.size(); ++i) {
    EXPECT_TRUE(info_of(stored.tensors[i]) == planned[i]) << planned[i].name;
    EXPECT_TRUE(stored.tensors[i].data.is_contiguous() && stored.tensors[i].data.device().is_cpu());
  }
  EXPECT_EQ(planned.at(0).name, "l.weight");
}

void expect_finite(const StoredLayer& stored) {
  for (const StoredTensor& tensor : stored.tensors)  // as F32: LibTorch does not compute with 8-bit floats
    EXPECT_TRUE(!tensor.data.is_floating_point() || tensor.data.to(at::kFloat).isfinite().all().item<bool>()) << tensor.name;
}

// Judged by the objective of the quantizer if it has one, else by the weights.
void expect_not_worse_than_rounding(const Sample& sample, const StoredLayer& stored, const LayerTarget& target) {
  const CodedFormat* coded = as_coded(*target.format);
  if (coded == nullptr) return;  // a cast: no codes to choose
  const double error = decode_error(sample.weight, stored, *target.format, target.layout);
  EXPECT_TRUE(sample.name != std::string_view("zeros") || error == 0);
  if (stored.statistics.contains("objective")) return expect_as_good_as_rounding(stored.statistics);
  const double rounding = rounding_error(sample.weight, coded->grid(), target.layout);
  // Decoding is in F32: what a value of 1 loses there, too, is no fault of the codes.
  EXPECT_LE(error, kAsGoodAsRounding * rounding + 1e-12 * static_cast<double>(sample.weight.numel()));
}

void expect_recognised(const Sample& sample, const StoredLayer& stored, const TestContext& context) {
  const StoredFormat& format = *context.target().format;
  const Layout& layout = context.target().layout;
  StoredLayerInfo layer{"l", {}, {}, format.label(layout).marker};
  const std::vector<TensorInfo> outputs = format.outputs(context.weight(), layout);
  layer.weight = outputs.at(0);
  layer.others.assign(outputs.begin() + 1, outputs.end());
  const std::optional<Layout> recognised = format.recognise(layer);
  ASSERT_TRUE(recognised);
  EXPECT_EQ(recognised->rotation_group, layout.rotation_group);
  EXPECT_EQ(format.original(layer, *recognised).shape, context.weight().shape);
  EXPECT_EQ(decode_error(sample.weight, stored, format, *recognised), decode_error(sample.weight, stored, format, layout));
}

// One run of the quantizer for all of these: some take seconds.
TEST_P(Contract, WhatItStoresIsPlannedFiniteRecognisedAndNoWorseThanPlainRounding) {
  for (const Sample& sample : stored_samples()) {
    SCOPED_TRACE(sample.name);
    TestContext context = context_for(sample.weight);
    const std::vector<TensorInfo> planned = quantizer().plan(context.weight(), context.target());
    const at::Tensor before = sample.weight.clone();
    const StoredLayer stored = quantizer().quantize(sample.weight, context);
    EXPECT_TRUE(sample.weight.equal(before)) << "the weight is borrowed";
    expect_as_planned(stored, planned);
    expect_finite(stored);
    expect_not_worse_than_rounding(sample, stored, context.target());
    expect_recognised(sample, stored, context);
  }
}

// Real inputs: many, too few to keep any apart, and a Hessian alone.
TEST_P(Contract, WithRealInputsOutputsAreNotWorseThanThoseOfPlainRounding) {
  const at::Tensor weight = random_weight(72, 64, at::kBFloat16, 11);
  const at::Tensor fresh = correlated_rows(200, 64, 12);
  const CalibrationStub many(correlated_rows(300, 64, 13)), few(correlated_rows(4, 64, 14));
  const CalibrationStub statistics = CalibrationStub::of_hessian(many.given_hessian);
  const at::Tensor rounded = plainly_rounded(weight, format(), GetParam().storage.options);
  for (const auto& [calibration, name] : {std::pair{&many, "many"}, {&few, "few"}, {&statistics, "a Hessian"}}) {
    SCOPED_TRACE(name);
    TestContext context = context_for(weight);
    context.calibrated = calibration;
    const StoredLayer stored = quantizer().quantize(weight, context);
    const at::Tensor decoded = decode(context.weight(), stored, format(), context.target().layout);
    for (const at::Tensor& rows : {fresh, calibration->held_out}) {
      if (!rows.defined()) continue;
      EXPECT_LE(output_error(weight, decoded, rows), std::pow(kAsGoodOnRealInputs, 2) * output_error(weight, rounded, rows));
    }
    if (quantizer().info().uses_calibration && as_coded(format()) != nullptr) expect_as_good_as_rounding(stored.statistics);
  }
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TEST_P(Contract, WithRealInputsTheBytesAreTheSameForEveryNumberOfThreads) {
  const at::Tensor weight = random_weight(72, 64, at::kFloat, 11);
  const CalibrationStub calibration(correlated_rows(80, 64, 13));
  const TensorInfo info = info_of({"l.weight", weight});
  StoredLayer first;
  for (const int threads : {1, 3}) {
    ThreadedContext context(threads, info, target_for(info));
    context.calibrated = &calibration;
    const StoredLayer stored = quantizer().quantize(weight, context);
    if (threads == 1) first = stored;
    EXPECT_EQ(stored.statistics, first.statistics);
    for (std::size_t i = 0; i < first.tensors.size(); ++i) EXPECT_TRUE(same_bytes(stored.tensors[i].data, first.tensors[i].data)) << i;
  }
}

TEST_P(Contract, InputsThatCannotBeComputedWithAreAnErrorOrNotUsed) {
  const at::Tensor weight = random_weight(24, 128, at::kFloat, 15);
  const at::Tensor with_nan = at::eye(128), negative = at::eye(128).neg();
  with_nan[127][5] = std::numeric_limits<double>::quiet_NaN();
  with_nan[5][127] = std::numeric_limits<double>::quiet_NaN();
  CalibrationStub held_out(correlated_rows(200, 128, 16));
  held_out.held_out.view(-1)[300] = std::numeric_limits<double>::infinity();
  const CalibrationStub bad[] = {CalibrationStub::of_hessian(at::eye(127)),
                                 CalibrationStub::of_hessian(at::eye(129)),
                                 CalibrationStub::of_hessian(at::full({128, 64}, 1.0)),
                                 CalibrationStub::of_hessian(at::full({128}, 1.0)),
                                 CalibrationStub::of_hessian(with_nan),
                                 CalibrationStub::of_hessian(negative),
                                 held_out};
  for (const CalibrationStub& calibration : bad) {
    TestContext context = context_for(weight);
    context.calibrated = &calibration;
    try {
      const StoredLayer stored = quantizer().quantize(weight, context);
      EXPECT_FALSE(quantizer().info().uses_calibration) << &calibration - bad;
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == ErrorKind::input || error.kind() == ErrorKind::numeric) << error.what();
    }
  }
}

TEST_P(Contract, NanAndInfinityAreRefused) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()})
    for (const std::int64_t place : {0, 77, 64 * 256 - 1}) {
      const at::Tensor weight = random_weight(64, 256, at::kFloat, 6);
      weight.view(-1)[place] = bad;
      TestContext context = context_for(weight);
      try {
        quantizer().quantize(weight, context);
        ADD_FAILURE() << bad << " at " << place << " was stored";
      } catch (const Error& error) {
        EXPECT_EQ(error_kind_name(error.kind()), "numeric") << error.what();
      }
    }
}

TEST_P(Contract, AnInterruptedQuantizerEndsOrFinishesButKeepsNothing) {
  TestContext context = context_for(random_weight(64, 1024, at::kFloat, 7));
  context.cancelled = true;
  try {
    quantizer().quantize(random_weight(64, 1024, at::kFloat, 7), context);
  } catch (const Error& error) {
    EXPECT_EQ(error_kind_name(error.kind()), "cancelled");
  }
}

TEST_P(Contract, TheBytesAreTheSameForEveryNumberOfThreads) {
  const TempDir dir;
  ConvertOptions options;
  options.input = dir / "in.safetensors";
  options.output = dir / "out.safetensors";
  options.run.overwrite = true;
  options.run.sync = false;
  options.target.quantizer = GetParam().quantizer;
  options.target.format = GetParam().format;
  options.target.storage = GetParam().storage.options;
  std::vector<testing::NamedTensor> tensors;
  for (const Sample& sample : samples()) tensors.push_back({std::string(sample.name) + ".weight", sample.weight});
  testing::write_model(options.input, tensors);
  const auto source = host().open(options.input);
  std::string first;
  for (const int threads : {1, 4, 4}) {
    options.run.threads = threads;
    run_plan(*source, make_plan(host(), *source, options));
    const std::string bytes = testing::read_bytes(options.output);
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads << " threads";
  }
}

std::string pair_name(const ::testing::TestParamInfo<Pair>& info) {
  std::string name = info.param.quantizer + "_" + info.param.format + "_" + info.param.storage.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(EveryPlugin, Contract, ::testing::ValuesIn(pairs()), pair_name);

TEST(ContractItself, RunsOnThePluginsOfThisBuild) {
  std::string names;
  for (const Pair& pair : pairs()) names += pair.quantizer + " " + pair.format + " " + pair.storage.name + "\n";
  for (const char* expected : {"rtn int8 row_rotated\n", "rtn int8 block\n", "fp16 fp16 "})
    EXPECT_NE(names.find(expected), std::string::npos) << names;
}

}  // namespace
}  // namespace qmill
