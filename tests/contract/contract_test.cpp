// What every quantizer owes, run on all that the host finds.
#include "model_file.h"
#include "temp_dir.h"
#include "test_context.h"

#include <qmill/core/convert.h>
#include <qmill/names.h>

#include <ATen/ops/kron.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qmill {
namespace {

using testing::random_weight;
using testing::TempDir;
using testing::TestContext;

constexpr double kAsGoodAsRounding = 1.001;

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

const Host& host() {
  static const Host host({QMILL_TEST_PLUGINS});
  return host;
}

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const Quantizer* quantizer : host().quantizers())
    for (const Format* format : host().formats()) {
      const std::vector<std::string>& formats = quantizer->info().formats;
      const bool named =
          std::any_of(formats.begin(), formats.end(), [&](const std::string& name) { return same_name(name, format->info().name); });
      if (!named && (!formats.empty() || format->grid() == nullptr)) continue;
      for (const Storage& storage : storages()) {
        all.push_back({quantizer->info().name, format->info().name, storage});
        if (format->grid() == nullptr) break;  // no scales: one layout
      }
    }
  return all;
}

class Contract : public ::testing::TestWithParam<Pair> {
 protected:
  const Quantizer& quantizer() const { return host().quantizer(GetParam().quantizer); }
  const Format& format() const { return host().format(GetParam().format); }

  TestContext context_for(const at::Tensor& weight) const {
    const TensorInfo info = {"l.weight", dtype_of(weight), weight.sizes().vec()};
    return {info, {&format(), format().layout(info, GetParam().storage.options), Options(quantizer().info().options)}};
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
  double error = 0;
  for (std::int64_t top = 0; top < rows; top += layout.tile_rows)
    for (std::int64_t left = 0; left < columns; left += layout.tile_columns) {
      const std::int64_t bottom = std::min(rows, top + layout.tile_rows), right = std::min(columns, left + layout.tile_columns);
      double largest = 0;
      for (std::int64_t r = top; r < bottom; ++r)
        for (std::int64_t c = left; c < right; ++c) largest = std::max(largest, std::fabs(values[r * columns + c]));
      const double scale = std::max(largest / grid.largest(), 1e-30);
      for (std::int64_t r = top; r < bottom; ++r)
        for (std::int64_t c = left; c < right; ++c) {
          double best = std::numeric_limits<double>::infinity();
          for (int code = grid.lowest; code <= grid.highest; ++code)
            best = std::min(best, std::fabs(values[r * columns + c] - grid.value(code) * scale));
          error += best * best;
        }
    }
  return error;
}

double decode_error(const at::Tensor& weight, const StoredLayer& stored, const Format& format, const Layout& layout) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : stored.tensors) tensors.push_back(tensor.data);
  at::Tensor decoded = at::zeros(weight.sizes(), at::kFloat);
  format.decode_rows(tensors, layout, 0, weight.size(0), decoded.mutable_data_ptr<float>());
  return weight.to(at::kDouble).sub(decoded.to(at::kDouble)).square().sum().item<double>();
}

TEST_P(Contract, TheResultIsWhatThePlanSaid) {
  for (const Sample& sample : samples()) {
    SCOPED_TRACE(sample.name);
    TestContext context = context_for(sample.weight);
    const std::vector<TensorInfo> planned = quantizer().plan(context.weight(), context.target());
    const StoredLayer stored = quantizer().quantize(sample.weight, context);
    ASSERT_EQ(stored.tensors.size(), planned.size());
    for (std::size_t i = 0; i < planned.size(); ++i) {
      EXPECT_TRUE(info_of(stored.tensors[i]) == planned[i]) << planned[i].name;
      EXPECT_TRUE(stored.tensors[i].data.is_contiguous() && stored.tensors[i].data.device().is_cpu());
    }
    EXPECT_EQ(planned.at(0).name, "l.weight");
  }
}

TEST_P(Contract, TheWeightIsBorrowedAndStaysAsItIs) {
  for (const Sample& sample : samples()) {
    TestContext context = context_for(sample.weight);
    const at::Tensor before = sample.weight.clone();
    quantizer().quantize(sample.weight, context);
    EXPECT_TRUE(sample.weight.equal(before)) << sample.name;
  }
}

TEST_P(Contract, ScalesAndEveryOtherStoredNumberAreFinite) {
  for (const Sample& sample : samples()) {
    TestContext context = context_for(sample.weight);
    for (const StoredTensor& tensor : quantizer().quantize(sample.weight, context).tensors)
      EXPECT_TRUE(!tensor.data.is_floating_point() || tensor.data.isfinite().all().item<bool>()) << sample.name << " " << tensor.name;
  }
}

TEST_P(Contract, TheErrorIsNeverWorseThanThatOfPlainRounding) {
  const Grid* grid = format().grid();
  if (grid == nullptr) return;  // a cast: no codes to choose
  for (const Sample& sample : samples()) {
    TestContext context = context_for(sample.weight);
    const double error = decode_error(sample.weight, quantizer().quantize(sample.weight, context), format(), context.target().layout);
    const double rounding = rounding_error(sample.weight, *grid, context.target().layout);
    // Decoding is in F32: what a value of 1 loses there, too, is no fault of the codes.
    EXPECT_LE(error, kAsGoodAsRounding * rounding + 1e-12 * static_cast<double>(sample.weight.numel())) << sample.name;
    EXPECT_TRUE(sample.name != std::string_view("zeros") || error == 0);
  }
}

TEST_P(Contract, AFormatRecognisesWhatItWasStoredAs) {
  for (const Sample& sample : samples()) {
    TestContext context = context_for(sample.weight);
    const Layout& layout = context.target().layout;
    StoredLayerInfo layer{"l", {}, {}, format().label(layout).marker};
    const std::vector<TensorInfo> outputs = format().outputs(context.weight(), layout);
    layer.weight = outputs.at(0);
    layer.others.assign(outputs.begin() + 1, outputs.end());
    const std::optional<Layout> recognised = format().recognise(layer);
    ASSERT_TRUE(recognised) << sample.name;
    EXPECT_EQ(recognised->rotation_group, layout.rotation_group) << sample.name;
    const StoredLayer stored = quantizer().quantize(sample.weight, context);
    EXPECT_EQ(decode_error(sample.weight, stored, format(), *recognised), decode_error(sample.weight, stored, format(), layout))
        << sample.name;
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
  options.overwrite = true;
  options.sync = false;
  options.quantizer = GetParam().quantizer;
  options.format = GetParam().format;
  options.storage = GetParam().storage.options;
  std::vector<testing::NamedTensor> tensors;
  for (const Sample& sample : samples()) tensors.push_back({std::string(sample.name) + ".weight", sample.weight});
  testing::write_model(options.input, tensors);
  const auto source = host().open(options.input);
  std::string first;
  for (const int threads : {1, 4, 4}) {
    options.threads = threads;
    run_plan(*source, make_plan(host(), *source, options), options);
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
