// Conversion: the one way from an input to its output.
#include <qmill/core/conversion.h>

#include "core_support.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <qmill/core/decoded_source.h>
#include <qmill/core/dequantize.h>

#include <cmath>

namespace qmill {
namespace {

using testing::bytes_of;
using testing::decision_of;
using testing::expect_error;
using testing::host;
using testing::Job;
using testing::kRowMarker;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::write_bytes;
using testing::write_model;

const std::vector<NamedTensor> kPlain = {{"a.weight", random_weight(48, 64, at::kBFloat16, 1)},
                                         {"b.weight", random_weight(32, 64, at::kBFloat16, 2)}};

std::vector<NamedTensor> quantized_model() {
  return {{"l.weight", at::full({4, 6}, 3, at::kChar)},
          {"l.weight_scale", at::full({4, 1}, 0.5f)},
          {"l.comfy_quant", bytes_of(kRowMarker)},
          {"l.bias", at::ones({4}, at::kHalf)}};
}

TEST(Conversion, PlansOnceAndRunsThatPlan) {
  Job job(kPlain);
  Conversion conversion(host(), job.options);
  EXPECT_EQ(conversion.source().tensors().size(), 2u);
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"}) << "opening writes nothing";
  const Plan& plan = conversion.plan();
  EXPECT_EQ(&conversion.plan(), &plan);
  const std::string digest = plan.digest();
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"}) << "planning writes nothing";
  const ConvertReport report = conversion.run();
  EXPECT_EQ(&conversion.plan(), &plan);
  EXPECT_EQ(plan.digest(), digest);
  EXPECT_EQ(report.layers.size(), 2u);
  EXPECT_EQ(std::filesystem::file_size(job.options.output), plan.output.bytes());
}

TEST(Conversion, RunPlansWhereNobodyDid) {
  Job planned(kPlain), direct(kPlain);
  Conversion first(host(), planned.options);
  first.plan();
  first.run();
  Conversion second(host(), direct.options);
  second.run();
  EXPECT_TRUE(read_bytes(planned.options.output) == read_bytes(direct.options.output));
}

TEST(Conversion, CanBeMoved) {
  Job job(kPlain);
  Conversion conversion(host(), job.options);
  conversion.plan();
  Conversion moved(std::move(conversion));
  EXPECT_EQ(moved.run().layers.size(), 2u);
}

TEST(Conversion, InputFilesAreAllThatIsRead) {
  Job job(kPlain);
  job.options.calibration.data = job.dir / "data.safetensors";
  job.options.merge.paths = {job.dir / "lora.safetensors"};
  const Conversion conversion(host(), job.options);
  std::vector<std::filesystem::path> files = conversion.input_files();
  for (const std::filesystem::path& file : {job.options.input, job.options.calibration.data, job.options.merge.paths[0]})
    EXPECT_NE(std::find(files.begin(), files.end(), file), files.end()) << file;
}

// A model whose values a heuristic cannot look at without an error.
struct UnreadableJob : Job {
  UnreadableJob() : Job({{"a.weight", at::full({32, 64}, std::nanf(""))}}) { options.layers.skip_inefficient = true; }
};

TEST(Conversion, TheDestinationIsCheckedBeforeAHeuristicReads) {
  UnreadableJob job;
  write_bytes(job.options.output, "precious");
  Conversion refused(host(), job.options);
  expect_error(ErrorKind::usage, {"exists already"}, [&] { refused.check_destination(); });
  expect_error(ErrorKind::usage, {"exists already"}, [&] { refused.run(); });
  EXPECT_EQ(read_bytes(job.options.output), "precious");
  job.options.run.overwrite = true;
  Conversion reading(host(), job.options);
  reading.check_destination();
  expect_error(ErrorKind::numeric, {"'a.weight'", "not finite"}, [&] { reading.run(); });
  EXPECT_EQ(read_bytes(job.options.output), "precious");
}

TEST(Conversion, ErrorsNameTheModel) {
  Job job(kPlain);
  job.options.input = job.dir / "none.safetensors";
  expect_error(ErrorKind::io, {"none.safetensors"}, [&] { Conversion(host(), job.options); });

  Job quantized(quantized_model());
  expect_error(ErrorKind::input, {"'" + quantized.options.input.string() + "'", "quantized already"},
               [&] { Conversion(host(), quantized.options).plan(); });
  write_model(quantized.options.input, {{"l.weight", at::full({4, 6}, 3, at::kChar)}, {"l.comfy_quant", bytes_of("{")}});
  quantized.options.dequantize_source = true;
  expect_error(ErrorKind::input, {"in.safetensors'", "'l'"}, [&] { Conversion(host(), quantized.options); });

  Job unselected(kPlain);
  unselected.options.layers.exclude = ".";
  expect_error(ErrorKind::input, {"in.safetensors'", "0 layers selected", "2 kept by exclude"},
               [&] { Conversion(host(), unselected.options).require_selection(); });
  expect_error(ErrorKind::input, {"in.safetensors'", "0 layers selected"}, [&] { Conversion(host(), unselected.options).run(); });

  Job sick({{"a.weight", at::full({32, 64}, std::nanf(""))}});
  expect_error(ErrorKind::numeric, {"in.safetensors'", "'a.weight'"}, [&] { Conversion(host(), sick.options).run(); });
  EXPECT_EQ(sick.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Conversion, OnlyTheQualityErrorIsAboutNoModel) {
  Job job(kPlain);
  job.options.fail_below = 200;
  Conversion conversion(host(), job.options);
  EXPECT_THROW(conversion.run(), QualityError);
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Conversion, ACancelledOnePublishesNothing) {
  Job job(kPlain);
  const std::atomic<bool> cancel = true;
  Conversion conversion(host(), job.options);
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { conversion.plan(&cancel); });
  RunHooks hooks;
  hooks.cancel = &cancel;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { conversion.run(hooks); });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  EXPECT_EQ(conversion.run().layers.size(), 2u) << "a second try is a new one";
}

// A source that counts its reads, and cancels with the first of them.
class CancellingSource final : public TensorSource {
 public:
  CancellingSource(const TensorSource& source, std::atomic<bool>& cancel) : source_(source), cancel_(cancel) {}
  const std::vector<TensorInfo>& tensors() const override { return source_.tensors(); }
  const std::map<std::string, std::string>& metadata() const override { return source_.metadata(); }
  std::vector<std::filesystem::path> files() const override { return source_.files(); }
  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    ++reads;
    cancel_ = true;
    source_.read_part(index, begin, out);
  }
  std::optional<Extent> extent(std::size_t index) const override { return source_.extent(index); }

  mutable std::atomic<int> reads = 0;

 private:
  const TensorSource& source_;
  std::atomic<bool>& cancel_;
};

TEST(Plan, IsCancelledBeforeAndBetweenLayers) {
  Job job(kPlain);
  job.options.layers.skip_inefficient = true;
  const auto file = host().open(job.options.input);
  std::atomic<bool> cancel = true;
  const CancellingSource before(*file, cancel);
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { make_plan(host(), before, job.options, &cancel); });
  EXPECT_EQ(before.reads, 0);
  cancel = false;
  const CancellingSource between(*file, cancel);
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { make_plan(host(), between, job.options, &cancel); });
  EXPECT_EQ(between.reads, 1) << "the second layer is not read any more";
  cancel = false;
  EXPECT_EQ(make_plan(host(), *file, job.options, &cancel).count(Action::quantize), 2u);
}

TEST(DecodingPlan, StoresDecodedLayersInTheTypeAskedForAndCopiesTheRest) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Job job(quantized_model());
    job.options.decode_to = dtype;
    Conversion conversion(host(), job.options);
    const Plan& plan = conversion.plan();
    ASSERT_EQ(plan.decisions.size(), 2u) << "scales and markers are gone";
    const Decision& layer = decision_of(plan, "l.weight");
    EXPECT_TRUE(layer.is_layer);
    EXPECT_EQ(layer.action, dtype == DType::f32 ? Action::copy : Action::cast);
    EXPECT_EQ(layer.outputs, (std::vector<TensorInfo>{{"l.weight", dtype, {4, 6}}}));
    EXPECT_EQ(decision_of(plan, "l.bias").action, Action::copy);
    EXPECT_EQ(plan.count(Action::quantize), 0u);
    conversion.require_selection();  // a plan that decodes selects no layer, and needs none
    conversion.run();
    const at::Tensor stored = job.output().tensors.at("l.weight");
    EXPECT_EQ(dtype_of(stored), dtype);
    EXPECT_TRUE(stored.to(at::kFloat).equal(at::full({4, 6}, 1.5f)));
    EXPECT_EQ(job.output().tensors.at("l.bias").scalar_type(), at::kHalf);
    EXPECT_EQ(std::filesystem::file_size(job.options.output), plan.output.bytes());
  }
}

TEST(DecodingPlan, IsWhatDequantizeRuns) {
  Job job(quantized_model());
  job.options.decode_to = DType::bf16;
  Conversion(host(), job.options).run();
  const DequantizeReport report = dequantize(host(), {job.options.input, job.dir / "other.safetensors", DType::bf16, job.options.run});
  EXPECT_EQ(report.layers.size(), 1u);
  EXPECT_TRUE(read_bytes(job.options.output) == read_bytes(job.dir / "other.safetensors"));
}

TEST(DecodingPlan, ItsDigestDependsOnTheTypeAlone) {
  Job job(quantized_model());
  const auto digest = [&](DType dtype) {
    job.options.decode_to = dtype;
    return Conversion(host(), job.options).plan().digest();
  };
  const std::string bf16 = digest(DType::bf16);
  EXPECT_NE(digest(DType::f16), bf16);
  EXPECT_NE(digest(DType::f32), bf16);
  job.options.run.threads = 5;
  job.options.output = "elsewhere";
  EXPECT_EQ(digest(DType::bf16), bf16);
}

TEST(DecodingPlan, NeedsALayerThatIsQuantizedAndAKnownType) {
  Job plain(kPlain);
  plain.options.decode_to = DType::bf16;
  expect_error(ErrorKind::input, {"in.safetensors'", "no layer of it is quantized"}, [&] { Conversion(host(), plain.options).plan(); });
  Job job(quantized_model());
  job.options.decode_to = DType::i8;
  expect_error(ErrorKind::usage, {"I8", "bf16, f16, f32"}, [&] { Conversion(host(), job.options).plan(); });
  job.options.decode_to = DType::bf16;
  const std::atomic<bool> cancel = true;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { Conversion(host(), job.options).plan(&cancel); });
}

}  // namespace
}  // namespace qmill
