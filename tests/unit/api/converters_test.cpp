// The converter classes: every option and argument, against plain LibTorch and against whole conversions.
#include "api_support.h"

#include "calibration_stub.h"

#include <qmill/compat/converters.h>

#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/TensorOperators.h>

#include <cmath>

namespace qmill {
namespace {

using testing::Int8Conversion;
using testing::correlated_rows;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::random_weight;

const at::Tensor& weight() {
  static const at::Tensor weight = random_weight(256, 256, at::kBFloat16, 1);
  return weight;
}

const at::Tensor& hessian() {
  static const at::Tensor hessian = [] {
    const at::Tensor rows = correlated_rows(1000, 256, 3).to(at::kDouble);
    const at::Tensor product = at::mm(rows.t(), rows);
    return product.add(product.t()).div(2).to(at::kFloat).contiguous();
  }();
  return hessian;
}

// sum of e H e^T over the rows of the error e.
double objective(const at::Tensor& dequantized, const at::Tensor& h = hessian(), const at::Tensor& source = weight()) {
  const at::Tensor error = source.to(at::kDouble).sub(dequantized);
  return at::mm(error, h.to(at::kDouble)).mul(error).sum().item<double>();
}

at::Tensor rounded(const at::Tensor& source = weight()) {
  const at::Tensor w = source.to(at::kFloat);
  const at::Tensor scale = w.abs().amax({1}, true).div(127);
  return w.div(scale).round().mul(scale);
}

// dequantized is exactly what q and scale say.
void expect_consistent(const ConvertedWeight& result) {
  EXPECT_EQ(result.q.scalar_type(), at::kChar);
  EXPECT_EQ(result.scale.scalar_type(), at::kFloat);
  at::Tensor scale = result.scale;
  if (scale.dim() == 2 && (scale.size(0) != result.q.size(0) || scale.size(1) != 1))
    scale = scale.repeat_interleave(result.q.size(0) / scale.size(0), 0).repeat_interleave(result.q.size(1) / scale.size(1), 1);
  EXPECT_TRUE(result.q.to(at::kFloat).mul(scale).equal(result.dequantized));
}

std::string log_of(const std::function<void()>& call) {
  ::testing::internal::CaptureStderr();
  setup_logging("VERBOSE");
  call();
  setup_logging("NORMAL");
  return ::testing::internal::GetCapturedStderr();
}

TEST(Gptq, ConvertLowersTheObjective) {
  const GPTQInt8Converter converter({.block_size = 128, .device = "cuda", .actorder = true, .lazy_updates = true, .use_triton = false});
  const auto [q, scale, dequantized] = converter.convert(weight(), {.H = hessian()});
  expect_consistent({q, scale, dequantized});
  EXPECT_EQ(scale.sizes(), (std::vector<std::int64_t>{256, 1}));
  EXPECT_LT(objective(dequantized), 0.6 * objective(rounded()));
  EXPECT_TRUE(converter.convert(weight()).dequantized.equal(rounded()));  // without H: the identity
}

TEST(Gptq, TheScaleOfTheHessianDoesNotMatter) {
  const GPTQInt8Converter converter;
  const at::Tensor q = converter.convert(weight(), {.H = hessian()}).q;
  EXPECT_TRUE(converter.convert(weight(), {.H = hessian().mul(1024)}).q.equal(q));
}

TEST(Gptq, EqualsTheConversionOfAFile) {
  Int8Conversion job({{"a.weight", weight()}});
  job.options.calibration_data_path = job.write("h.safetensors", {{"a.hessian", hessian()}});
  job.options.converter_kwargs = {{"optimizer", std::string("gptq")}, {"convrot", std::string("off")}};
  job.options.gptq_actorder = true;
  EXPECT_TRUE(job.run().tensors.at("a.weight").equal(GPTQInt8Converter().convert(weight(), {.H = hessian()}).q));
}

TEST(Gptq, BlockSizeAndLazyUpdatesChangeSpeedOnly) {
  const at::Tensor q = GPTQInt8Converter().convert(weight(), {.H = hessian()}).q;
  const auto differing = [&](const GPTQInt8ConverterOptions& options) {
    return GPTQInt8Converter(options).convert(weight(), {.H = hessian()}).q.ne(q).sum().item<std::int64_t>();
  };
  EXPECT_LE(differing({.block_size = 32}), q.numel() / 1000);  // ties
  EXPECT_LE(differing({.lazy_updates = false}), q.numel() / 1000);
  expect_error(ErrorKind::usage, {"block_size", "0"}, [] { GPTQInt8Converter({.block_size = 0}); });
}

TEST(Gptq, Actorder) {
  const at::Tensor ordered = GPTQInt8Converter({.actorder = true}).convert(weight(), {.H = hessian()}).q;
  EXPECT_FALSE(GPTQInt8Converter({.actorder = false}).convert(weight(), {.H = hessian()}).q.equal(ordered));
}

TEST(Gptq, DeviceAndTritonAreSaid) {
  EXPECT_THAT(log_of([] { GPTQInt8Converter({.device = "cuda:1"}); }), HasSubstr("device 'cuda:1': this build computes on the CPU"));
  EXPECT_EQ(log_of([] { GPTQInt8Converter({.device = "cpu"}); }), "");
  EXPECT_THAT(log_of([] { GPTQInt8Converter({.device = "cpu", .use_triton = true}); }), HasSubstr("use_triton is for GPUs"));
  expect_error(ErrorKind::usage, {"tpu", "auto, cpu"}, [] { GPTQInt8Converter({.device = "tpu"}); });
}

TEST(Gptq, ScalingMode) {
  const ConvertedWeight one = GPTQInt8Converter({.scaling_mode = "tensor"}).convert(weight(), {.H = hessian()});
  EXPECT_EQ(one.scale.dim(), 0);
  expect_consistent(one);
  expect_error(ErrorKind::usage, {"scaling_mode", "rows"}, [] { GPTQInt8Converter({.scaling_mode = "rows"}); });
}

TEST(Converters, RefuseWhatDoesNotFit) {
  const GPTQInt8Converter converter;
  expect_error(ErrorKind::usage, {"matrix"}, [&] { converter.convert(at::ones({4})); });
  expect_error(ErrorKind::usage, {"matrix"}, [&] { converter.convert(at::ones({4, 4}, at::kInt)); });
  expect_error(ErrorKind::usage, {"H is", "4 x 4", "256 x 256"}, [&] { converter.convert(weight(), {.H = at::ones({4, 4})}); });
  expect_error(ErrorKind::usage, {"activation_scales", "256"}, [&] { converter.convert(weight(), {.activation_scales = at::ones({4})}); });
  expect_error(ErrorKind::usage, {"smoothquant_alpha", "2"}, [&] { converter.convert(weight(), {.smoothquant_alpha = 2}); });
  expect_error(ErrorKind::numeric, {"H has values"}, [&] { converter.convert(weight(), {.H = hessian().mul(std::nan(""))}); });
  expect_error(ErrorKind::numeric, {}, [&] { converter.convert(at::full({4, 4}, std::nan(""))); });
}

TEST(Converters, TakeViews) {
  const at::Tensor wide = random_weight(256, 64, at::kFloat, 4);
  EXPECT_TRUE(GPTQInt8Converter().convert(wide.t()).q.equal(GPTQInt8Converter().convert(wide.t().contiguous()).q));
}

TEST(Quip, ConvertLowersTheObjective) {
  const QuIPInt8Converter converter({.block_size = 128,
                                     .device = "cuda",
                                     .actorder = true,
                                     .use_hadamard = true,
                                     .seed = std::nullopt,
                                     .use_triton = false,
                                     .lazy_updates = true,
                                     .store_transformed = false,
                                     .requant_scheme = "tensor",
                                     .requant_tensor_use_per_row_scale = true,
                                     .streaming_mode = "balanced",
                                     .streaming_thresholds = {},
                                     .no_memory_limits = false,
                                     .use_checkpointed_ldlq = false,
                                     .checkpointed_ldlq_threshold = 8192,
                                     .checkpoint_segments = 4});
  const auto [q, scale, dequantized] = converter.convert(weight(), {.H = hessian(), .activation_scales = {}, .smoothquant_alpha = 0.5});
  expect_consistent({q, scale, dequantized});
  EXPECT_LT(objective(dequantized), 0.6 * objective(rounded()));
}

TEST(Quip, ActorderAndSpeedOptions) {
  const auto codes = [](const QuIPInt8ConverterOptions& options) {
    return QuIPInt8Converter(options).convert(weight(), {.H = hessian()}).q;
  };
  const at::Tensor q = codes({});
  EXPECT_FALSE(codes({.actorder = false}).equal(q));
  EXPECT_LE(codes({.block_size = 16}).ne(q).sum().item<std::int64_t>(), q.numel() / 1000);  // ties
  EXPECT_LE(codes({.lazy_updates = false}).ne(q).sum().item<std::int64_t>(), q.numel() / 1000);
  EXPECT_TRUE(codes({.use_checkpointed_ldlq = true, .checkpointed_ldlq_threshold = 1, .checkpoint_segments = 2}).equal(q));
  EXPECT_TRUE(codes({.streaming_thresholds = {{"ldlq", 128 * 256}}}).equal(q));
  EXPECT_TRUE(codes({.streaming_mode = "aggressive"}).equal(q));
  EXPECT_TRUE(codes({.no_memory_limits = true}).equal(q));
  expect_error(ErrorKind::usage, {"streaming mode", "bold"}, [&] { codes({.streaming_mode = "bold"}); });
  expect_error(ErrorKind::usage, {"streaming threshold", "ldlg"}, [&] { codes({.streaming_thresholds = {{"ldlg", 1}}}); });
  expect_error(ErrorKind::usage, {"threshold", "`no_memory_limits`"}, [&] {
    codes({.streaming_thresholds = {{"ldlq", 1}}, .no_memory_limits = true});
  });
  expect_error(ErrorKind::usage, {"checkpoint_segments", "0"}, [&] { codes({.checkpoint_segments = 0}); });
  EXPECT_THAT(log_of([] { QuIPInt8Converter({.device = "cpu", .use_triton = true}); }), HasSubstr("use_triton"));
  EXPECT_THAT(log_of([] { QuIPInt8Converter({.device = "cuda"}); }), HasSubstr("cuda"));
}

TEST(Quip, StoreTransformedIsDecodedToTheOriginalBasis) {
  const ConvertedWeight result = QuIPInt8Converter({.store_transformed = true}).convert(weight(), {.H = hessian()});
  EXPECT_FALSE(result.q.to(at::kFloat).mul(result.scale).equal(result.dequantized));
  EXPECT_LT(objective(result.dequantized), 0.6 * objective(rounded()));
  expect_error(ErrorKind::usage, {"dense"}, [] { QuIPInt8Converter({.use_hadamard = false, .store_transformed = true}); });
}

TEST(Quip, UseHadamardChangesNothingThatIsStoredPlainly) {
  const at::Tensor q = QuIPInt8Converter().convert(weight(), {.H = hessian()}).q;
  EXPECT_TRUE(QuIPInt8Converter({.use_hadamard = false, .seed = 5}).convert(weight(), {.H = hessian()}).q.equal(q));
  EXPECT_THAT(log_of([] { QuIPInt8Converter().convert(weight(), {.H = hessian()}); }), HasSubstr("random transform changes nothing"));
}

TEST(Quip, RequantScheme) {
  const ConvertedWeight blocks = QuIPInt8Converter({.requant_scheme = "block"}).convert(weight(), {.H = hessian()});
  EXPECT_EQ(blocks.scale.sizes(), (std::vector<std::int64_t>{2, 2}));
  expect_consistent(blocks);
  const ConvertedWeight one = QuIPInt8Converter({.requant_tensor_use_per_row_scale = false}).convert(weight(), {.H = hessian()});
  EXPECT_EQ(one.scale.dim(), 0);
  expect_consistent(one);
  expect_error(ErrorKind::usage, {"requant_scheme", "rows"}, [] { QuIPInt8Converter({.requant_scheme = "rows"}); });
}

TEST(Quip, ActivationScalesAndAlphaWeightTheColumns) {
  const at::Tensor largest = hessian().diag().sqrt();
  const auto codes = [&](double alpha) {
    return QuIPInt8Converter({.requant_tensor_use_per_row_scale = true})
        .convert(weight(), {.activation_scales = largest, .smoothquant_alpha = alpha});
  };
  // SmoothQuant's factors (arXiv 2211.10438, eq. 4), and what they say is to be small.
  const at::Tensor factors = largest.to(at::kDouble).sqrt().div(weight().to(at::kDouble).abs().amax({0}).sqrt());
  const at::Tensor weights = at::diag(factors.square());
  EXPECT_LE(objective(codes(0.5).dequantized, weights), objective(rounded(), weights) * (1 + 1e-9));
  expect_consistent(codes(0.5));
}

TEST(LearnedRounding, ConvertRoundsIntoTiles) {
  const LearnedRoundingConverter converter({.block_size = 128,
                                            .num_iter = 1000,
                                            .lr = 0.008,
                                            .optimizer = "original",
                                            .lr_schedule = "adaptive",
                                            .top_p = 0.2,
                                            .min_k = 64,
                                            .max_k = 1024});
  const auto [q, scale, dequantized] = converter.convert(weight(), {.activation_scales = {}});
  expect_consistent({q, scale, dequantized});
  EXPECT_EQ(scale.sizes(), (std::vector<std::int64_t>{2, 2}));
  const at::Tensor tiles = weight().to(at::kFloat).view({2, 128, 2, 128}).abs().amax({1, 3}).div(127);
  EXPECT_TRUE(scale.equal(tiles));
}

TEST(LearnedRounding, EveryOptionChangesTheCodes) {
  const auto codes = [](const LearnedRoundingConverterOptions& options) { return LearnedRoundingConverter(options).convert(weight()).q; };
  const at::Tensor q = codes({});
  EXPECT_FALSE(codes({.num_iter = 0}).equal(q));
  EXPECT_FALSE(codes({.block_size = 64}).equal(q));
  EXPECT_FALSE(codes({.lr = 0.0001}).equal(q));
  EXPECT_FALSE(codes({.lr_schedule = "exponential", .options = {{"lr_gamma", 0.3}}}).equal(q));
  EXPECT_FALSE(codes({.top_p = 0.9}).equal(q));
  EXPECT_FALSE(codes({.min_k = 200}).equal(q));
  EXPECT_FALSE(codes({.min_k = 1, .max_k = 8}).equal(q));
  EXPECT_FALSE(codes({.num_iter = 20, .optimizer = "adamw"}).equal(codes({.num_iter = 0, .optimizer = "adamw"})));
  EXPECT_FALSE(codes({.num_iter = 20, .optimizer = "radam"}).equal(codes({.num_iter = 0, .optimizer = "radam"})));
  expect_error(ErrorKind::usage, {"optimizer", "sgd", "original, adamw, radam"}, [&] { codes({.optimizer = "sgd"}); });
  expect_error(ErrorKind::usage, {"lr_schedule", "cosine"}, [&] { codes({.lr_schedule = "cosine"}); });
  expect_error(ErrorKind::usage, {"momentum"}, [&] { codes({.options = {{"momentum", 0.9}}}); });
}

TEST(LearnedRounding, BlockSizeMustDivideTheSides) {
  const at::Tensor odd = random_weight(100, 256, at::kFloat, 5);
  expect_error(ErrorKind::usage, {"block_size 128", "100 x 256", "scaling_mode row"}, [&] { LearnedRoundingConverter().convert(odd); });
  const ConvertedWeight rows = LearnedRoundingConverter({.scaling_mode = "row"}).convert(odd);
  EXPECT_EQ(rows.scale.sizes(), (std::vector<std::int64_t>{100, 1}));
}

TEST(LearnedRounding, ActivationScales) {
  const at::Tensor largest = hessian().diag().sqrt();
  const LearnedRoundingConverter converter({.scaling_mode = "row"});
  EXPECT_FALSE(converter.convert(weight(), {.activation_scales = largest}).q.equal(converter.convert(weight()).q));
}

}  // namespace
}  // namespace qmill
