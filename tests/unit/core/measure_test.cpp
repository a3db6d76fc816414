#include "report/output_error.h"

#include "core_support.h"

#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <ATen/Parallel.h>

#include <cmath>

namespace qmill {
namespace {

using testing::host;
using testing::random_weight;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble};

double norm(const at::Tensor& tensor) { return at::linalg_vector_norm(tensor).item<double>(); }

// The plain LibTorch expression in F64.
double expected_error(const at::Tensor& inputs, const at::Tensor& weight, const at::Tensor& decoded) {
  const at::Tensor x = inputs.to(at::kDouble);
  const at::Tensor w = weight.to(at::kDouble);
  const at::Tensor y = x.matmul(w.t());
  return norm(y.sub(x.matmul(decoded.to(at::kDouble).t()))) / norm(y);
}

double measured(const at::Tensor& inputs, const at::Tensor& weight, const at::Tensor& decoded, int threads) {
  TaskPool tasks(threads);
  const RowDecoder rows = plain_rows(decoded);
  return measure_output(inputs, weight, {&rows, 1}, tasks).relative(0);
}

// A layer rounded plainly in the given layout, as a file would hold it.
struct Rounded {
  Rounded(const at::Tensor& weight, const StorageOptions& storage) : info{"l.weight", dtype_of(weight), weight.sizes().vec()} {
    testing::Job job({{"l.weight", weight}});
    job.options.target.storage = storage;
    const Plan plan = job.plan();
    format = plan.decisions.at(0).target.format;
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
  const Format* format;
  Layout layout;
  std::vector<at::Tensor> stored;
};

TEST(OutputError, IsThePlainExpressionForEveryTypeAndForOddSizes) {
  for (const at::ScalarType type : kTypes)
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
  OutputSums sums = measure_output(inputs.narrow(0, 0, 7), weight, {&rows, 1}, tasks);
  sums.merge(measure_output(inputs.narrow(0, 7, 23), weight, {&rows, 1}, tasks));
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
    LayerOutput output(rounded.info, weight, changed.rows(), *rounded.format, rounded.layout, false, {tasks, *buffers, nullptr});
    LayerQuality quality;
    output.report(quality);
    EXPECT_FALSE(quality.output_error) << "no inputs yet";
    output.add(inputs.narrow(0, 0, 10));
    output.add(inputs.narrow(0, 10, 23));
    output.report(quality);
    EXPECT_NEAR(*quality.output_error / expected_error(inputs, weight, changed.decoded()), 1, 1e-4);
    EXPECT_NEAR(*quality.rounding_output_error / expected_error(inputs, weight, rounded.decoded()), 1, 1e-4);
    EXPECT_GT(*quality.output_error, 2 * *quality.rounding_output_error);
    EXPECT_EQ(quality.output_rows, 33);

    LayerOutput its_own(rounded.info, weight, rounded.rows(), *rounded.format, rounded.layout, true, {tasks, *buffers, nullptr});
    its_own.add(inputs);
    LayerQuality plain;
    its_own.report(plain);
    EXPECT_EQ(plain.output_error, plain.rounding_output_error);
    EXPECT_NEAR(*plain.output_error / *quality.rounding_output_error, 1, 1e-9);
  }
}

// Decodes whole weights only, and counts how often.
class WholeFormat final : public Format {
 public:
  const FormatInfo& info() const override {
    static const FormatInfo info = {"whole", {}, "", false};
    return info;
  }
  Layout layout(const TensorInfo&, const StorageOptions&) const override { return {}; }
  FormatLabel label(const Layout&) const override { return {}; }
  std::vector<TensorInfo> outputs(const TensorInfo& weight, const Layout&) const override { return {weight}; }
  const Grid* grid() const override { return nullptr; }
  std::vector<StoredTensor> encode(const CodedWeight&, const TensorInfo&, const Layout&) const override { return {}; }
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
  EXPECT_EQ(measure_output(inputs, weight, {&rows, 1}, tasks).relative(0), measured(inputs, weight, decoded, 2));
  EXPECT_EQ(format.calls, 1);

  const auto buffers = std::make_shared<BufferPool>(1 << 20);
  const TensorInfo info{"l.weight", DType::f32, {2500, 40}};
  LayerOutput output(info, weight, rows, format, {}, false, {tasks, *buffers, nullptr});
  output.add(inputs);
  LayerQuality quality;
  output.report(quality);
  EXPECT_TRUE(quality.output_error);
  EXPECT_FALSE(quality.rounding_output_error) << "there are no codes to round to";
}

LayerQuality judged(const char* name, std::optional<double> sqnr, std::optional<double> output, std::optional<double> rounding) {
  LayerQuality quality{name, "int8_tensorwise", "int8 row", 0.1, sqnr, 1};
  quality.output_error = output;
  quality.rounding_output_error = rounding;
  quality.output_rows = output ? 40 : 0;
  return quality;
}

TEST(Quality, LayersWithAYardstickAreJudgedByTheirOutputs) {
  EXPECT_FALSE(is_below(judged("calibrated", 10.0, 0.1, 0.1), 30)) << "10 dB of the weights do not matter";
  EXPECT_FALSE(is_below(judged("within the tolerance", 10.0, 0.1019, 0.1), 30));
  EXPECT_TRUE(is_below(judged("worse", 50.0, 0.1021, 0.1), 30));
  EXPECT_TRUE(is_below(judged("NaN", 50.0, std::nan(""), 0.1), 30));
  EXPECT_FALSE(is_below(judged("exact", std::nullopt, 0.0, 0.0), 30));
  EXPECT_TRUE(is_below(judged("without a yardstick", 29.0, 0.1, std::nullopt), 30));
  EXPECT_FALSE(is_below(judged("without a yardstick", 31.0, 0.1, std::nullopt), 30));
  EXPECT_EQ(judgment(judged("", 1.0, 0.1, 0.1)), Judgment::outputs);
  EXPECT_EQ(judgment(judged("", 1.0, 0.1, std::nullopt)), Judgment::weights);
}

TEST(Quality, TheBoundOfARunIsAboutOutputsWhereTheyAreKnown) {
  EXPECT_DOUBLE_EQ(*signal_to_noise_db(judged("", 10.0, 0.01, 0.01)), 40);
  EXPECT_DOUBLE_EQ(*signal_to_noise_db(judged("", 10.0, std::nullopt, std::nullopt)), 10);
  EXPECT_FALSE(signal_to_noise_db(judged("", 10.0, 0.0, 0.0)));
}

TEST(Quality, TheSummaryNamesTheLayerThatIsWorstBesidePlainRounding) {
  const std::vector<LayerQuality> layers = {judged("a", 40.0, 0.1, 0.2), judged("b", 20.0, 0.03, 0.02), judged("c", 25.0, {}, {}),
                                            judged("d", 50.0, 0.5, {})};
  const QualitySummary summary = summarize(layers, 30);
  EXPECT_EQ(summary.judged_by_outputs, 2u);
  EXPECT_EQ(summary.below_by_outputs, 1u);
  EXPECT_EQ(summary.below_threshold, 2u);
  EXPECT_DOUBLE_EQ(*summary.mean_output_error, 0.21);
  EXPECT_DOUBLE_EQ(*summary.mean_rounding_output_error, 0.11);
  EXPECT_DOUBLE_EQ(*summary.output_vs_rounding, 0.13 / 0.22);
  EXPECT_EQ(summary.worst_output->name, "b");
  EXPECT_EQ(summary.worst->name, "b");
  const std::vector<LayerQuality> with_nan = {judged("n", 40.0, std::nan(""), 0.2), judged("b", 20.0, 9.0, 0.02)};
  EXPECT_EQ(summarize(with_nan, 30).worst_output->name, "n");
}

TEST(Quality, TheReportHasColumnsForOutputsOnlyWhenThereAreAny) {
  const std::string plain = quality_report_text({judged("a", 40.0, {}, {})}, 30);
  EXPECT_EQ(plain.find("Output"), std::string::npos);
  EXPECT_EQ(plain.find("utputs"), std::string::npos);
  EXPECT_NE(plain.find("\n" + std::string(88, '-') + "\n"), std::string::npos);

  const std::string text = quality_report_text({judged("a", 40.0, 0.0125, 0.025), judged("b", 20.0, {}, {})}, 30);
  EXPECT_NE(text.find("Max Error  | Output Err | vs rtn"), std::string::npos) << text;
  EXPECT_NE(text.find("| 1.0000     | 0.012500   | 50.0 %\n"), std::string::npos) << text;
  EXPECT_NE(text.find("| 1.0000     | -          | -\n"), std::string::npos) << text;
  EXPECT_NE(text.find("Mean Output Error: 0.012500 (50.0 % of plain rounding's)"), std::string::npos) << text;
  EXPECT_NE(text.find("judged by their outputs, worse than plain rounding: 0 / 1"), std::string::npos) << text;
  EXPECT_NE(text.find("Layers below 30.0 dB: 1 / 1"), std::string::npos) << text;
}

}  // namespace
}  // namespace qmill
