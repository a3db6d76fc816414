#include "report/measure.h"

#include "report/rounded.h"

#include "core_support.h"

#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>

#include <array>
#include <atomic>
#include <cmath>

namespace qmill {
namespace {

using testing::host;
using testing::random_weight;

constexpr at::ScalarType kFloatingTypes[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble};

double frobenius(const at::Tensor& tensor) { return at::linalg_vector_norm(tensor).item<double>(); }

// The plain LibTorch expression in F64.
double expected_error(const at::Tensor& inputs, const at::Tensor& weight, const at::Tensor& decoded) {
  const at::Tensor x = inputs.to(at::kDouble);
  const at::Tensor w = weight.to(at::kDouble);
  const at::Tensor y = x.matmul(w.t());
  return frobenius(y.sub(x.matmul(decoded.to(at::kDouble).t()))) / frobenius(y);
}

OutputSums measure_output(const at::Tensor& inputs, const at::Tensor& weight, const RowDecoder& rows, TaskPool& tasks) {
  return measure(weight, {&rows, 1}, {inputs, {}}, tasks).outputs;
}

double measured(const at::Tensor& inputs, const at::Tensor& weight, const at::Tensor& decoded, int threads) {
  TaskPool tasks(threads);
  return measure_output(inputs, weight, plain_rows(decoded), tasks).relative(0);
}

// A layer rounded plainly in the given layout, as a file would hold it.
struct Rounded {
  Rounded(const at::Tensor& weight, const StorageOptions& storage) : info{"l.weight", dtype_of(weight), weight.sizes().vec()} {
    testing::Job job({{"l.weight", weight}});
    job.options.target.storage = storage;
    const Plan plan = job.plan();
    format = as_coded(*plan.decisions.at(0).target.format);
    layout = plan.decisions.at(0).target.layout;
    job.run();
    for (const TensorInfo& output : plan.decisions.at(0).outputs) stored.push_back(job.output().tensors.at(output.name));
  }

  at::Tensor decoded() const {
    at::Tensor all = at::zeros(info.shape, at::kFloat);
    format->decode_rows(stored, layout, 0, info.shape[0], all.mutable_data_ptr<float>());
    return all;
  }

  RowDecoder rows() const { return stored_rows(stored, info, *format, layout); }

  TensorInfo info;
  const CodedFormat* format;
  Layout layout;
  std::vector<at::Tensor> stored;
};

TEST(OutputError, IsThePlainExpressionForEveryTypeAndForOddSizes) {
  for (const at::ScalarType type : kFloatingTypes)
    for (const auto& [n, k, v] : {std::array<std::int64_t, 3>{1, 1, 1}, {7, 129, 3}, {300, 65, 1030}, {2100, 33, 17}, {40, 20000, 5}}) {
      SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(k));
      const at::Tensor weight = random_weight(n, k, type, 1);
      const at::Tensor decoded = weight.to(at::kFloat).add(random_weight(n, k, at::kFloat, 2), 0.01);
      const at::Tensor inputs = random_weight(v, k, at::kFloat, 3);
      const double expected = expected_error(inputs, weight, decoded);
      EXPECT_NEAR(measured(inputs, weight, decoded, 2) / expected, 1, 1e-5);
    }
}

TEST(OutputError, IsTheSameForEveryNumberOfThreads) {
  const at::Tensor weight = random_weight(700, 513, at::kBFloat16, 1);
  const at::Tensor decoded = weight.to(at::kFloat).add(random_weight(700, 513, at::kFloat, 2), 0.01);
  const at::Tensor inputs = random_weight(1500, 513, at::kFloat, 3);
  const double one = measured(inputs, weight, decoded, 1);
  for (const int threads : {2, 3, 8}) EXPECT_EQ(measured(inputs, weight, decoded, threads), one) << threads;
  const int before = at::get_num_threads();
  at::set_num_threads(4);
  EXPECT_EQ(measured(inputs, weight, decoded, 2), one) << "LibTorch's own threads";
  EXPECT_EQ(at::get_num_threads(), 4);
  at::set_num_threads(before);
}

TEST(OutputError, PartsOfTheInputsAddUp) {
  const at::Tensor weight = random_weight(50, 40, at::kFloat, 1);
  const at::Tensor decoded = weight.add(random_weight(50, 40, at::kFloat, 2), 0.1);
  const at::Tensor inputs = random_weight(30, 40, at::kFloat, 3);
  TaskPool tasks(2);
  const RowDecoder rows = plain_rows(decoded);
  OutputSums sums = measure_output(inputs.narrow(0, 0, 7), weight, rows, tasks);
  sums.merge(measure_output(inputs.narrow(0, 7, 23), weight, rows, tasks));
  EXPECT_EQ(sums.rows, 30);
  EXPECT_NEAR(sums.relative(0) / expected_error(inputs, weight, decoded), 1, 1e-5);
}

TEST(OutputError, IsZeroForWhatIsExactAndInfiniteForOutputsFromNothing) {
  const at::Tensor weight = random_weight(8, 6, at::kFloat, 1);
  const at::Tensor inputs = random_weight(5, 6, at::kFloat, 2);
  EXPECT_EQ(measured(inputs, weight, weight, 1), 0);
  EXPECT_EQ(measured(inputs, at::zeros({8, 6}), at::zeros({8, 6}), 1), 0);
  EXPECT_TRUE(std::isinf(measured(inputs, at::zeros({8, 6}), weight, 1)));
  EXPECT_EQ(measured(at::zeros({5, 6}), weight, at::zeros({8, 6}), 1), 0) << "no output is wrong for these inputs";
}

TEST(OutputError, NanIsNotHidden) {
  at::Tensor decoded = random_weight(8, 6, at::kFloat, 1);
  const at::Tensor weight = decoded.clone();
  decoded.mutable_data_ptr<float>()[7] = std::nanf("");
  EXPECT_TRUE(std::isnan(measured(random_weight(5, 6, at::kFloat, 2), weight, decoded, 1)));
}

TEST(OutputError, SeesOnlyTheDirectionsThatInputsHave) {
  const at::Tensor weight = at::full({4, 6}, 1.0f);
  at::Tensor decoded = weight.clone();
  decoded.narrow(1, 0, 1).fill_(3);  // wrong in the first column alone
  at::Tensor inputs = at::rand({9, 6});
  inputs.narrow(1, 0, 1).zero_();
  EXPECT_EQ(measured(inputs, weight, decoded, 1), 0);
}

TEST(OutputError, InputsOfAnotherWidthAreRefused) {
  const at::Tensor weight = random_weight(8, 6, at::kFloat, 1);
  EXPECT_THROW(measured(random_weight(5, 7, at::kFloat, 2), weight, weight, 1), Error);
  const RowDecoder rows = plain_rows(weight);
  TaskPool tasks(1);
  EXPECT_THROW(measure(weight, {&rows, 1}, {{}, at::zeros({7})}, tasks), Error);
  EXPECT_THROW(measure(weight, {&rows, 1}, {{}, at::zeros({6}, at::kDouble)}, tasks), Error) << "not F32";
}

TEST(OutputError, PlainRoundingIsTheYardstickInEveryLayout) {
  const at::Tensor weight = random_weight(64, 512, at::kBFloat16, 1);
  const at::Tensor inputs = random_weight(33, 512, at::kFloat, 2);
  StorageOptions row, rotated, tensor, block;
  row.rotation.mode = Rotation::Mode::off;
  tensor.scaling = Scaling::tensor;
  block.scaling = Scaling::block;
  block.block_size = 32;
  for (const StorageOptions& storage : {row, rotated, tensor, block}) {
    const Rounded rounded(weight, storage);
    SCOPED_TRACE(rounded.format->label(rounded.layout).summary);
    // What some other quantizer stored: the same layout with codes of its own.
    Rounded changed = rounded;
    changed.stored[0] = changed.stored[0].clone();
    changed.stored[0].narrow(1, 0, 100).fill_(0);

    TaskPool tasks(2);
    const auto buffers = std::make_shared<BufferPool>(1 << 20);
    const RunResources resources{tasks, *buffers, nullptr};
    const std::vector<RowDecoder> versions = {changed.rows(),
                                              rounded_rows(rounded.info, weight, *rounded.format, rounded.layout, resources)};
    LayerQuality quality;
    set_output_error(quality, measure(weight, versions, {}, tasks).outputs, false);
    EXPECT_FALSE(quality.output_error) << "no inputs yet";
    OutputSums sums = measure(weight, versions, {inputs.narrow(0, 0, 10), {}}, tasks).outputs;
    sums.merge(measure(weight, versions, {inputs.narrow(0, 10, 23), {}}, tasks).outputs);
    set_output_error(quality, sums, false);
    EXPECT_NEAR(*quality.output_error / expected_error(inputs, weight, changed.decoded()), 1, 1e-4);
    EXPECT_NEAR(*quality.rounding_output_error / expected_error(inputs, weight, rounded.decoded()), 1, 1e-4);
    EXPECT_GT(*quality.output_error, 2 * *quality.rounding_output_error);
    EXPECT_EQ(quality.output_rows, 33);

    LayerQuality plain;
    set_output_error(plain, measure_output(inputs, weight, rounded.rows(), tasks), true);
    EXPECT_EQ(plain.output_error, plain.rounding_output_error);
    EXPECT_NEAR(*plain.output_error / *quality.rounding_output_error, 1, 1e-9);
  }
}

// Decodes whole weights only, and counts how often.
class WholeFormat final : public StoredFormat {
 public:
  const FormatInfo& info() const override {
    static const FormatInfo info = {"whole", {}, "", false};
    return info;
  }
  FormatLabel label(const Layout&) const override { return {}; }
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout&) const override { return {weight}; }
  std::optional<Layout> recognise(const StoredLayerInfo&) const override { return std::nullopt; }
  void decode_rows(std::span<const at::Tensor> tensors, const Layout&, std::int64_t begin, std::int64_t end, float* out) const override {
    if (begin != 0 || end != tensors[0].size(0)) throw Error(ErrorKind::internal, "asked for a part");
    const float* values = tensors[0].const_data_ptr<float>();
    std::copy(values, values + tensors[0].numel(), out);
    ++calls;
  }

  mutable int calls = 0;
};

TEST(OutputError, AFormatWhoseRowsDependOnEachOtherIsAskedForAllAtOnce) {
  const at::Tensor weight = random_weight(2500, 40, at::kFloat, 1);
  const at::Tensor decoded = weight.add(random_weight(2500, 40, at::kFloat, 2), 0.1);
  const at::Tensor inputs = random_weight(30, 40, at::kFloat, 3);
  const WholeFormat format;
  TaskPool tasks(2);
  const RowDecoder rows = stored_rows({decoded}, {"l.weight", DType::f32, {2500, 40}}, format, {});
  EXPECT_EQ(measure_output(inputs, weight, rows, tasks).relative(0), measured(inputs, weight, decoded, 2));
  EXPECT_EQ(format.calls, 1);

  LayerQuality quality;
  set_output_error(quality, measure_output(inputs, weight, rows, tasks), false);
  EXPECT_TRUE(quality.output_error);
  EXPECT_FALSE(quality.rounding_output_error) << "there is nothing to compare with";
}

// A version of a weight that counts how often each of its rows is asked for.
struct CountedRows {
  explicit CountedRows(const at::Tensor& values) : rows(plain_rows(values)), counts(static_cast<std::size_t>(values.size(0))) {}

  RowDecoder decoder() {
    return [this](std::int64_t begin, std::int64_t end, float* out) {
      for (std::int64_t row = begin; row < end; ++row) ++counts.at(static_cast<std::size_t>(row));
      rows(begin, end, out);
    };
  }

  RowDecoder rows;
  std::vector<std::atomic<int>> counts;
};

TEST(Measure, EveryRowOfEveryVersionIsDecodedOnce) {
  for (const auto& [n, k] : {std::array<std::int64_t, 2>{1, 1}, {7, 129}, {2500, 40}, {40, 20000}, {3, 300000}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(k));
    const at::Tensor weight = random_weight(n, k, at::kFloat, 1);
    const at::Tensor inputs = random_weight(3, k, at::kFloat, 2);
    for (const bool has_rows : {false, true})
      for (const bool has_mean : {false, true}) {
        CountedRows stored(weight), other(weight);
        const std::vector<RowDecoder> versions = {stored.decoder(), other.decoder()};
        TaskPool tasks(3);
        measure(weight, versions, {has_rows ? inputs : at::Tensor(), has_mean ? inputs.mean(0) : at::Tensor()}, tasks);
        for (const auto& count : stored.counts) ASSERT_EQ(count, 1);
        for (const auto& count : other.counts) ASSERT_EQ(count, has_rows ? 1 : 0) << "compared by outputs alone";
      }
  }
}

// What measure() says, by the definitions, in F64 and one value at a time.
struct SlowFigures {
  SlowFigures(const at::Tensor& weight, const at::Tensor& decoded, const at::Tensor& mean) {
    const at::Tensor w = weight.to(at::kDouble).contiguous(), d = decoded.to(at::kDouble).contiguous(), m = mean.to(at::kDouble);
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const double value = w.const_data_ptr<double>()[i], error = value - d.const_data_ptr<double>()[i];
      squared_signal += value * value;
      squared_error += error * error;
      largest_error = std::max(largest_error, std::abs(error));
    }
    for (std::int64_t row = 0; row < w.size(0); ++row) {
      double shift = 0;
      for (std::int64_t i = 0; i < w.size(1); ++i)
        shift += (w.const_data_ptr<double>()[row * w.size(1) + i] - d.const_data_ptr<double>()[row * w.size(1) + i]) *
                 m.const_data_ptr<double>()[i];
      mean_shift.push_back(shift);
    }
  }

  double squared_signal = 0, squared_error = 0, largest_error = 0;
  std::vector<double> mean_shift;
};

TEST(Measure, TheFiguresAreThoseOfTheDefinitionsWithAndWithoutInputs) {
  for (const at::ScalarType type : kFloatingTypes)
    for (const auto& [n, k] : {std::array<std::int64_t, 2>{1, 1}, {7, 129}, {2100, 33}, {40, 20000}}) {
      SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(k));
      // As readers compute in F32, an F64 weight is compared as F32.
      const at::Tensor weight = random_weight(n, k, at::kFloat, 1).to(type);
      const at::Tensor decoded = weight.to(at::kFloat).add(random_weight(n, k, at::kFloat, 2), 0.01);
      const at::Tensor mean = random_weight(1, k, at::kFloat, 3).view({k});
      const SlowFigures expected(weight, decoded, mean);
      const RowDecoder rows = plain_rows(decoded);
      TaskPool tasks(2);
      for (const at::Tensor& inputs : {at::Tensor(), random_weight(5, k, at::kFloat, 4)}) {
        const Measurement found = measure(weight, {&rows, 1}, {inputs, mean}, tasks);
        EXPECT_EQ(found.values.count, n * k);
        EXPECT_NEAR(found.values.squared_signal / expected.squared_signal, 1, 1e-5);
        EXPECT_NEAR(found.values.squared_error / expected.squared_error, 1, 1e-4);
        EXPECT_NEAR(found.values.largest_error / expected.largest_error, 1, 1e-4);
        EXPECT_EQ(found.outputs.rows, inputs.defined() ? 5 : 0);
        ASSERT_EQ(found.mean_shift.sizes(), at::IntArrayRef({n}));
        ASSERT_EQ(found.mean_shift.scalar_type(), at::kDouble);
        const double scale = std::sqrt(expected.squared_error / static_cast<double>(n)) * frobenius(mean);
        for (std::int64_t row = 0; row < n; ++row)
          ASSERT_NEAR(found.mean_shift.const_data_ptr<double>()[row], expected.mean_shift[static_cast<std::size_t>(row)], 1e-4 * scale);
      }
      EXPECT_FALSE(measure(weight, {&rows, 1}, {}, tasks).mean_shift.defined());
    }
}

TEST(Measure, MeanShiftAndValuesAreTheSameForEveryNumberOfThreads) {
  const at::Tensor weight = random_weight(700, 513, at::kBFloat16, 1);
  const at::Tensor decoded = weight.to(at::kFloat).add(random_weight(700, 513, at::kFloat, 2), 0.01);
  const at::Tensor mean = random_weight(1, 513, at::kFloat, 3).view({513});
  const RowDecoder rows = plain_rows(decoded);
  TaskPool one(1);
  const Measurement expected = measure(weight, {&rows, 1}, {{}, mean}, one);
  for (const int threads : {2, 3, 8}) {
    TaskPool tasks(threads);
    const Measurement found = measure(weight, {&rows, 1}, {{}, mean}, tasks);
    EXPECT_TRUE(found.mean_shift.equal(expected.mean_shift)) << threads;
    EXPECT_EQ(found.values.squared_error, expected.values.squared_error) << threads;
    EXPECT_EQ(found.values.squared_signal, expected.values.squared_signal) << threads;
  }
}

}  // namespace
}  // namespace qmill
