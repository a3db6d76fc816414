// Every parameter of convert_to_int8, and what it changes.
#include "api_support.h"

#include "calibration_stub.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <cmath>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::Int8Conversion;
using testing::correlated_rows;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::ModelFile;
using ::testing::Not;
using testing::random_weight;

using Options = ConvertToInt8Options;

std::string marker_of(const ModelFile& file, const std::string& layer) {
  const at::Tensor& bytes = file.tensors.at(layer + ".comfy_quant");
  return {static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes()};
}

std::vector<std::int64_t> scale_shape(const ModelFile& file, const std::string& layer) {
  return file.tensors.at(layer + ".weight_scale").sizes().vec();
}

at::ScalarType type_of(const ModelFile& file, const std::string& name) { return file.tensors.at(name).scalar_type(); }

// The plain LibTorch expressions of one scale per row.
at::Tensor row_scales(const at::Tensor& weight) { return weight.to(at::kFloat).abs().amax({1}, true).div(127); }
at::Tensor row_codes(const at::Tensor& weight) { return weight.to(at::kFloat).div(row_scales(weight)).round().to(at::kChar); }

// With rows of inputs for a.weight.
class Calibrated : public Int8Conversion {
 public:
  Calibrated()
      : Int8Conversion({{"a.weight", random_weight(512, 256, at::kBFloat16, 1)}, {"b.weight", random_weight(32, 128, at::kBFloat16, 2)}}) {
    options.calibration_data_path = write("rows.safetensors", {{"a.input", correlated_rows(1000, 256, 3)}});
    options.converter_kwargs["optimizer"] = std::string("gptq");
  }
};

class Quip : public Calibrated {
 public:
  Quip() { options.converter_kwargs["optimizer"] = std::string("quip"); }
};

TEST(ConvertToInt8, InputFileAndOutputFile) {
  Int8Conversion job;
  const ModelFile source = testing::read_model(job.options.input_file);
  const ModelFile out = job.run();
  EXPECT_TRUE(out.tensors.at("a.weight").equal(row_codes(source.tensors.at("a.weight"))));
  EXPECT_TRUE(out.tensors.at("a.weight_scale").equal(row_scales(source.tensors.at("a.weight"))));
  EXPECT_THAT(job.log, HasSubstr("'" + job.options.output_file + "' is complete: 2 layers"));
  job.run();  // replaces what is there
  expect_error(ErrorKind::usage, {"input_file"}, [&] { job.with([](Options& o) { o.input_file.clear(); }); });
  expect_error(ErrorKind::usage, {"output_file"}, [&] { job.with([](Options& o) { o.output_file.clear(); }); });
  expect_error(ErrorKind::io, {"nothing.safetensors"},
               [&] { job.with([&](Options& o) { o.input_file = job.path("nothing.safetensors"); }); });
  expect_error(ErrorKind::usage, {"model.safetensors"}, [&] { job.with([](Options& o) { o.output_file = o.input_file; }); });
}

TEST(ConvertToInt8, RotatesByDefault) {
  Int8Conversion job;
  job.options.converter_kwargs.erase("convrot");
  EXPECT_THAT(marker_of(job.run(), "a"), HasSubstr(R"("convrot_groupsize":256)"));
}

TEST(ConvertToInt8, ComfyQuant) {
  Int8Conversion job;
  EXPECT_TRUE(job.run().tensors.contains("a.comfy_quant"));
  const ModelFile legacy = job.with([](Options& o) { o.comfy_quant = false; });
  EXPECT_TRUE(legacy.tensors.contains("a.scale_weight"));
  EXPECT_FALSE(legacy.tensors.contains("a.comfy_quant"));
}

TEST(ConvertToInt8, FilterFlags) {
  Int8Conversion job({{"encoder.block.0.layer.0.SelfAttention.q.weight", random_weight(64, 64, at::kFloat, 1)},
                  {"shared.weight", random_weight(64, 64, at::kFloat, 2)},
                  {"decoder.block.0.layer.0.SelfAttention.q.weight", random_weight(64, 64, at::kFloat, 3)}});
  EXPECT_EQ(type_of(job.run(), "shared.weight"), at::kChar);
  EXPECT_EQ(type_of(job.with([](Options& o) { o.filter_flags = {{"t5xxl", false}}; }), "shared.weight"), at::kChar);
  const ModelFile kept = job.with([](Options& o) { o.filter_flags = {{"t5xxl", true}}; });
  EXPECT_EQ(type_of(kept, "shared.weight"), at::kFloat);
  EXPECT_EQ(type_of(kept, "encoder.block.0.layer.0.SelfAttention.q.weight"), at::kChar);
  EXPECT_FALSE(kept.tensors.contains("decoder.block.0.layer.0.SelfAttention.q.weight"));
  expect_error(ErrorKind::usage, {"t5xl", "t5xxl"}, [&] { job.with([](Options& o) { o.filter_flags = {{"t5xl", false}}; }); });
}

TEST(ConvertToInt8, CalibSamples) {
  Calibrated job;
  const at::Tensor rows = correlated_rows(1000, 256, 3);
  const at::Tensor every_second = rows.index_select(0, at::arange(0, 1000, 2));
  job.options.converter_kwargs["bias_correction"] = false;
  const ModelFile limited = job.with([](Options& o) { o.calib_samples = 500; });
  EXPECT_THAT(job.log, HasSubstr("500 calibration rows are not used"));
  const std::string fewer = job.write("fewer.safetensors", {{"a.input", every_second}});
  const ModelFile of_fewer = job.with([&](Options& o) { o.calibration_data_path = fewer; });
  EXPECT_TRUE(limited.tensors.at("a.weight").equal(of_fewer.tensors.at("a.weight")));
  EXPECT_FALSE(limited.tensors.at("a.weight").equal(job.run().tensors.at("a.weight")));
  expect_error(ErrorKind::usage, {"`calib_samples`", "0"}, [&] { job.with([](Options& o) { o.calib_samples = 0; }); });
}

TEST(ConvertToInt8, Seed) {
  Quip job;
  job.options.converter_kwargs["transformed_layout"] = std::string("full");
  job.options.converter_kwargs.erase("convrot");
  job.options.quip_store_transformed = true;
  const auto signs = [&](std::int64_t seed) { return job.with([&](Options& o) { o.seed = seed; }).tensors.at("a.sign_col"); };
  EXPECT_TRUE(signs(7).equal(signs(7)));
  EXPECT_FALSE(signs(7).equal(signs(8)));
  const ModelFile drawn = job.with([](Options& o) { o.seed = -1; });
  EXPECT_THAT(job.log, HasSubstr("the seed is " + drawn.metadata.at("qmill.seed")));
}

TEST(ConvertToInt8, Fp16) {
  Int8Conversion job;
  const ModelFile out = job.with([](Options& o) { o.fp16 = true; });
  EXPECT_EQ(type_of(out, "a.weight"), at::kHalf);
  EXPECT_EQ(out.tensors.size(), 2u);
}

TEST(ConvertToInt8, ExcludeLayersAndFallback) {
  Int8Conversion job;
  const ModelFile kept = job.with([](Options& o) { o.exclude_layers = "^b"; });
  EXPECT_EQ(type_of(kept, "b.weight"), at::kBFloat16);
  EXPECT_EQ(type_of(kept, "a.weight"), at::kChar);
  const ModelFile cast = job.with([](Options& o) { o.exclude_layers = "^b", o.fallback = "fp16"; });
  EXPECT_EQ(type_of(cast, "b.weight"), at::kHalf);
  expect_error(ErrorKind::usage, {"fp17"}, [&] { job.with([](Options& o) { o.exclude_layers = "^b", o.fallback = "fp17"; }); });
}

TEST(ConvertToInt8, FallbackBlockSize) {
  Int8Conversion job;
  const ModelFile out = job.with([](Options& o) { o.exclude_layers = "^b", o.fallback = "int8", o.fallback_block_size = 16; });
  EXPECT_EQ(scale_shape(out, "b"), (std::vector<std::int64_t>{2, 8}));
  EXPECT_EQ(scale_shape(out, "a"), (std::vector<std::int64_t>{64, 1}));
  expect_error(ErrorKind::usage, {"`fallback TYPE`"}, [&] { job.with([](Options& o) { o.fallback_block_size = 16; }); });
}

TEST(ConvertToInt8, FallbackSimple) {
  Calibrated job;
  const at::Tensor plain = row_codes(testing::read_model(job.options.input_file).tensors.at("a.weight"));
  const auto codes = [&](bool simple) {
    return job.with([&](Options& o) { o.exclude_layers = "^a", o.fallback = "int8", o.fallback_simple = simple; }).tensors.at("a.weight");
  };
  EXPECT_TRUE(codes(true).equal(plain));
  EXPECT_FALSE(codes(false).equal(plain));
}

TEST(ConvertToInt8, CustomLayersAndCustomType) {
  Int8Conversion job;
  const ModelFile out = job.with([](Options& o) { o.custom_layers = "^b", o.custom_type = "fp16"; });
  EXPECT_EQ(type_of(out, "b.weight"), at::kHalf);
  EXPECT_EQ(type_of(out, "a.weight"), at::kChar);
  expect_error(ErrorKind::usage, {"`custom_type`"}, [&] { job.with([](Options& o) { o.custom_layers = "^b"; }); });
  expect_error(ErrorKind::usage, {"`custom_layers REGEX`"}, [&] { job.with([](Options& o) { o.custom_type = "fp16"; }); });
}

TEST(ConvertToInt8, CustomBlockSize) {
  Int8Conversion job;
  const ModelFile out = job.with([](Options& o) { o.custom_layers = "^b", o.custom_type = "int8", o.custom_block_size = 32; });
  EXPECT_EQ(scale_shape(out, "b"), (std::vector<std::int64_t>{1, 4}));
  EXPECT_THAT(marker_of(out, "b"), HasSubstr("int8_blockwise"));
  expect_error(ErrorKind::usage, {"custom_block_size", "0"},
               [&] { job.with([](Options& o) { o.custom_layers = "^b", o.custom_type = "int8", o.custom_block_size = 0; }); });
}

TEST(ConvertToInt8, CustomScalingMode) {
  Int8Conversion job;
  const ModelFile out = job.with([](Options& o) { o.custom_layers = "^b", o.custom_type = "int8", o.custom_scaling_mode = "tensor"; });
  EXPECT_TRUE(scale_shape(out, "b").empty());
  expect_error(ErrorKind::usage, {"custom_scaling_mode", "rows", "row, tensor"},
               [&] { job.with([](Options& o) { o.custom_layers = "^b", o.custom_type = "int8", o.custom_scaling_mode = "rows"; }); });
}

TEST(ConvertToInt8, CustomSimple) {
  Calibrated job;
  const at::Tensor plain = row_codes(testing::read_model(job.options.input_file).tensors.at("a.weight"));
  const auto codes = [&](bool simple) {
    return job.with([&](Options& o) { o.custom_layers = "^a", o.custom_type = "int8", o.custom_simple = simple; }).tensors.at("a.weight");
  };
  EXPECT_TRUE(codes(true).equal(plain));
  EXPECT_FALSE(codes(false).equal(plain));
}

TEST(ConvertToInt8, CustomHeur) {
  Int8Conversion job({{"a.weight", random_weight(64, 64, at::kFloat, 1)}, {"thin.weight", random_weight(8, 64, at::kFloat, 2)}});
  const auto type = [&](bool heuristic) {
    return type_of(job.with([&](Options& o) { o.custom_layers = "thin", o.custom_type = "int8", o.custom_heur = heuristic; }),
                   "thin.weight");
  };
  EXPECT_EQ(type(false), at::kChar);
  EXPECT_EQ(type(true), at::kFloat);
}

TEST(ConvertToInt8, SkipInefficientLayers) {
  Int8Conversion job({{"a.weight", random_weight(64, 64, at::kFloat, 1)}, {"thin.weight", random_weight(8, 64, at::kFloat, 2)}});
  EXPECT_EQ(type_of(job.run(), "thin.weight"), at::kChar);
  const ModelFile out = job.with([](Options& o) { o.skip_inefficient_layers = true; });
  EXPECT_EQ(type_of(out, "thin.weight"), at::kFloat);
  EXPECT_EQ(type_of(out, "a.weight"), at::kChar);
}

TEST(ConvertToInt8, FullPrecisionMatrixMult) {
  Int8Conversion job;
  EXPECT_THAT(marker_of(job.run(), "a"), Not(HasSubstr("full_precision")));
  EXPECT_THAT(marker_of(job.with([](Options& o) { o.full_precision_matrix_mult = true; }), "a"),
              HasSubstr(R"("full_precision_matrix_mult":true)"));
}

TEST(ConvertToInt8, IncludeInputScale) {
  Int8Conversion job;
  job.options.comfy_quant = false;
  EXPECT_FALSE(job.run().tensors.contains("a.scale_input"));
  EXPECT_TRUE(job.with([](Options& o) { o.include_input_scale = true; }).tensors.at("a.scale_input").equal(at::full({}, 1.0f)));
  expect_error(ErrorKind::usage, {"`input_scale`", "legacy"},
               [&] { job.with([](Options& o) { o.include_input_scale = true, o.comfy_quant = true; }); });
}

TEST(ConvertToInt8, NoLearnedRounding) {
  Calibrated job;
  job.options.converter_kwargs.erase("optimizer");
  const at::Tensor plain = row_codes(testing::read_model(job.options.input_file).tensors.at("a.weight"));
  EXPECT_FALSE(job.run().tensors.at("a.weight").equal(plain));
  EXPECT_TRUE(job.with([](Options& o) { o.no_learned_rounding = true; }).tensors.at("a.weight").equal(plain));
  expect_error(ErrorKind::usage, {"no_learned_rounding", "quip"},
               [&] { job.with([](Options& o) { o.no_learned_rounding = true, o.converter_kwargs["optimizer"] = std::string("quip"); }); });
}

TEST(ConvertToInt8, SaveQuantMetadata) {
  Int8Conversion job;
  EXPECT_FALSE(job.run().metadata.contains("_quantization_metadata"));
  EXPECT_THAT(job.with([](Options& o) { o.save_quant_metadata = true; }).metadata.at("_quantization_metadata"), HasSubstr(R"("a")"));
}

TEST(ConvertToInt8, LayerConfigAndFullmatch) {
  Int8Conversion job({{"a.weight", random_weight(64, 64, at::kFloat, 1)}, {"aa.weight", random_weight(64, 64, at::kFloat, 2)}});
  job.options.layer_config = parse_layer_config(R"({"layer_patterns": {"a": {"format": "fp16"}}})");
  EXPECT_EQ(type_of(job.run(), "aa.weight"), at::kHalf);
  const ModelFile whole = job.with([](Options& o) { o.layer_config_fullmatch = true; });
  EXPECT_EQ(type_of(whole, "a.weight"), at::kHalf);
  EXPECT_EQ(type_of(whole, "aa.weight"), at::kChar);
}

// What a keyword argument and a parameter both say is an error; neither is dropped.
TEST(ConvertToInt8, AParsedLayerConfigIsTheOptionOfThatName) {
  Int8Conversion job;
  job.options.layer_config = parse_layer_config(R"({"layer_patterns": {"a": {"format": "int8", "optimizer": "learned_rounding"}}})");
  job.options.converter_kwargs["optimizer"] = std::string("rtn");
  job.options.converter_kwargs["num_iter"] = std::int64_t{3};  // of a quantizer that only the layer configuration uses
  EXPECT_THAT(job.run().metadata.at("qmill.options"), HasSubstr("num-iter"));
  job.options.converter_kwargs["layer_config"] = std::string("other.json");
  expect_error(ErrorKind::usage, {"layer_config", "other.json"}, [&] { job.run(); });
}

TEST(ConvertToInt8, AThresholdGivenTwiceIsAnError) {
  Int8Conversion job;
  job.options.converter_kwargs["stream_ldlq_threshold"] = std::int64_t{5};
  EXPECT_EQ(type_of(job.run(), "a.weight"), at::kChar);
  job.options.streaming_thresholds = {{"ldlq", 6}};
  expect_error(ErrorKind::usage, {"stream_ldlq_threshold", "'6'", "'5'"}, [&] { job.run(); });
}

TEST(ConvertToInt8, MemoryIsALimitAndNoByteChanges) {
  Calibrated job;
  const std::string expected = job.bytes();
  EXPECT_THAT(job.log, HasSubstr("memory balanced, 128 MiB in flight"));
  EXPECT_EQ(job.bytes_with([](Options& o) { o.low_memory = true; }), expected);
  EXPECT_THAT(job.log, HasSubstr("one layer at a time"));
  EXPECT_EQ(job.bytes_with([](Options& o) { o.no_memory_limits = true; }), expected);
  EXPECT_THAT(job.log, HasSubstr("without a limit"));
  for (const auto& [mode, said] : {std::pair("off", "memory off, without a limit"), std::pair("minimal", "minimal, 512 MiB"),
                                   std::pair("aggressive", "aggressive, 32 MiB"), std::pair("auto", "memory auto: minimal")}) {
    EXPECT_EQ(job.bytes_with([&mode = mode](Options& o) { o.streaming_mode = mode; }), expected) << mode;
    EXPECT_THAT(job.log, HasSubstr(said));
  }
  expect_error(ErrorKind::usage, {"medium", "off, minimal, balanced, aggressive, auto"},
               [&] { job.with([](Options& o) { o.streaming_mode = "medium"; }); });
  expect_error(ErrorKind::usage, {"`low_memory`", "`no_memory_limits`"},
               [&] { job.with([](Options& o) { o.low_memory = o.no_memory_limits = true; }); });
}

TEST(ConvertToInt8, StreamingThresholds) {
  for (const char* optimizer : {"gptq", "quip"}) {
    Calibrated job;
    job.options.converter_kwargs = {{"optimizer", std::string(optimizer)}};  // rotated
    const std::string expected = job.bytes();
    EXPECT_TRUE(std::isnan(job.statistic("a", "pieces")));
    for (const char* step : {"ldlq", "hadamard"}) {
      EXPECT_EQ(job.bytes_with([&](Options& o) { o.streaming_thresholds = {{step, 128 * 256}}; }), expected);
      EXPECT_EQ(job.statistic("a", "pieces"), 4) << optimizer << " " << step;
    }
    EXPECT_EQ(job.bytes_with([&](Options& o) { o.streaming_thresholds = {{"hessian", 1}}; }), expected);
    EXPECT_EQ(job.bytes_with([&](Options& o) { o.streaming_thresholds = {{"ortho", 1}}; }), expected);
    EXPECT_THAT(job.log, HasSubstr("`stream_ortho_threshold` changes nothing"));
  }
  Calibrated job;
  expect_error(ErrorKind::usage, {"hadamar", "hadamard"}, [&] { job.with([](Options& o) { o.streaming_thresholds = {{"hadamar", 1}}; }); });
  expect_error(ErrorKind::usage, {"ldlq", "0"}, [&] { job.with([](Options& o) { o.streaming_thresholds = {{"ldlq", 0}}; }); });
}

TEST(ConvertToInt8, ReportQuality) {
  Int8Conversion job;
  job.run();
  EXPECT_THAT(job.log, Not(HasSubstr("Quantization Quality Report")));
  job.with([](Options& o) { o.report_quality = true; });
  EXPECT_THAT(job.log, HasSubstr("Quantization Quality Report"));
  EXPECT_THAT(job.log, HasSubstr("Mean SQNR"));
}

TEST(ConvertToInt8, QualityThreshold) {
  Int8Conversion job;
  job.run();
  EXPECT_THAT(job.log, Not(HasSubstr("warning")));
  job.with([](Options& o) { o.quality_threshold = 90; });
  EXPECT_THAT(job.log, HasSubstr("warning: a has"));
  EXPECT_THAT(job.log, HasSubstr("below 90.00 dB"));
}

TEST(ConvertToInt8, SmoothquantAndAlpha) {
  Int8Conversion job;
  const at::Tensor largest = correlated_rows(50, 256, 3).abs().amax({0});
  job.options.calibration_data_path = job.write("channels.safetensors", {{"a.channel_max", largest}});
  job.options.converter_kwargs["optimizer"] = std::string("gptq");
  job.options.converter_kwargs["scale_search"] = std::string("hessian");
  const at::Tensor without = job.run().tensors.at("a.weight");
  const auto codes = [&](double alpha) {
    return job.with([&](Options& o) { o.smoothquant = true, o.smoothquant_alpha = alpha; }).tensors.at("a.weight");
  };
  EXPECT_FALSE(codes(0.5).equal(without));
  EXPECT_FALSE(codes(0.5).equal(codes(1.0)));
  expect_error(ErrorKind::usage, {"alpha"}, [&] { codes(1.5); });
  expect_error(ErrorKind::usage, {"smoothquant"}, [&] { job.with([](Options& o) { o.smoothquant_alpha = 0.7; }); });
}

TEST(ConvertToInt8, CalibrationDataPath) {
  Calibrated job;
  job.options.converter_kwargs.erase("optimizer");
  const at::Tensor weight = testing::read_model(job.options.input_file).tensors.at("a.weight").to(at::kDouble);
  const at::Tensor rows = correlated_rows(1000, 256, 3).to(at::kDouble);
  const auto error = [&](const ModelFile& file) {
    const at::Tensor decoded = file.tensors.at("a.weight").to(at::kDouble).mul(file.tensors.at("a.weight_scale"));
    return at::mm(rows, weight.sub(decoded).t()).square().sum().item<double>();
  };
  const double rounded = error(job.with([](Options& o) { o.calibration_data_path.reset(); }));
  EXPECT_LT(error(job.run()), 0.7 * rounded);
  expect_error(ErrorKind::io, {"nothing"},
               [&] { job.with([&](Options& o) { o.calibration_data_path = job.path("nothing.safetensors"); }); });
}

TEST(ConvertToInt8, CalibrationLoraPath) {
  Int8Conversion job;
  job.options.converter_kwargs["optimizer"] = std::string("gptq");
  const at::Tensor without = job.run().tensors.at("a.weight");
  job.options.calibration_lora_path =
      job.write("lora.safetensors", {{"a.lora_A.weight", at::randn({4, 256})}, {"a.lora_B.weight", at::randn({64, 4})}});
  const ModelFile guided = job.run();
  EXPECT_FALSE(guided.tensors.at("a.weight").equal(without));
}

TEST(ConvertToInt8, GptqActorder) {
  Calibrated job;
  const at::Tensor in_order = job.run().tensors.at("a.weight");
  EXPECT_FALSE(job.with([](Options& o) { o.gptq_actorder = true; }).tensors.at("a.weight").equal(in_order));
}

TEST(ConvertToInt8, GptqFast) {
  Calibrated job;
  const at::Tensor fast = job.run().tensors.at("a.weight");
  EXPECT_LT(job.statistic("a", "block_columns"), 256);
  const at::Tensor slow = job.with([](Options& o) { o.gptq_fast = false; }).tensors.at("a.weight");
  EXPECT_EQ(job.statistic("a", "block_columns"), 256);
  EXPECT_LE(fast.ne(slow).sum().item<std::int64_t>(), fast.numel() / 1000);  // ties
}

TEST(ConvertToInt8, GptqTurbo) {
  Calibrated job;
  setup_logging("VERBOSE");
  job.run();
  EXPECT_THAT(job.log, Not(HasSubstr("turbo")));
  job.with([](Options& o) { o.gptq_turbo = true; });
  setup_logging("NORMAL");
  EXPECT_THAT(job.log, HasSubstr("a: turbo is for GPUs: it changes nothing on a CPU"));
}

TEST(ConvertToInt8, QuipActorder) {
  Quip job;
  const at::Tensor ordered = job.run().tensors.at("a.weight");
  EXPECT_FALSE(job.with([](Options& o) { o.quip_actorder = false; }).tensors.at("a.weight").equal(ordered));
}

TEST(ConvertToInt8, QuipHadamard) {
  Quip job;
  job.options.converter_kwargs.erase("convrot");
  job.options.quip_store_transformed = true;
  EXPECT_THAT(marker_of(job.run(), "a"), HasSubstr("convrot"));
  expect_error(ErrorKind::usage, {"hadamard", "dense"}, [&] { job.with([](Options& o) { o.quip_hadamard = false; }); });
}

TEST(ConvertToInt8, QuipSeed) {
  Quip job;
  job.options.converter_kwargs["transformed_layout"] = std::string("full");
  job.options.converter_kwargs.erase("convrot");
  job.options.quip_store_transformed = true;
  const auto signs = [&](std::int64_t quip_seed, std::int64_t seed) {
    return job.with([&](Options& o) { o.quip_seed = quip_seed, o.seed = seed; }).tensors.at("a.sign_col");
  };
  EXPECT_TRUE(signs(7, 1).equal(signs(7, 2)));
  EXPECT_FALSE(signs(7, 1).equal(signs(8, 1)));
}

TEST(ConvertToInt8, QuipStoreTransformed) {
  Quip job;
  job.options.converter_kwargs.erase("convrot");
  const ModelFile plain = job.run();
  EXPECT_THAT(marker_of(plain, "b"), Not(HasSubstr("convrot")));  // 256 does not divide its columns
  EXPECT_THAT(marker_of(job.with([](Options& o) { o.quip_store_transformed = true; }), "b"), HasSubstr(R"("convrot_groupsize":64)"));
}

TEST(ConvertToInt8, QuipRequantScheme) {
  Quip job;
  job.options.converter_kwargs.erase("convrot");
  EXPECT_EQ(scale_shape(job.run(), "a"), (std::vector<std::int64_t>{512, 1}));
  const ModelFile out = job.with([](Options& o) { o.quip_requant_scheme = "block"; });
  EXPECT_EQ(scale_shape(out, "a"), (std::vector<std::int64_t>{4, 2}));
  EXPECT_THAT(marker_of(out, "b"), HasSubstr("int8_tensorwise"));  // 128 does not divide its 32 rows
  expect_error(ErrorKind::usage, {"requant_scheme", "tensor, block"},
               [&] { job.with([](Options& o) { o.quip_requant_scheme = "rows"; }); });
}

TEST(ConvertToInt8, QuipRequantTensorPerRow) {
  Quip job;
  job.options.converter_kwargs.erase("convrot");
  EXPECT_TRUE(scale_shape(job.with([](Options& o) { o.quip_requant_tensor_per_row = false; }), "a").empty());
}

TEST(ConvertToInt8, QuipCheckpointedThresholdAndSegments) {
  Quip job;
  const ModelFile expected = job.run();
  const auto expect_same_tensors = [&](const ModelFile& file) {  // what was asked for is in the metadata
    ASSERT_EQ(file.tensors.size(), expected.tensors.size());
    for (const auto& [name, tensor] : expected.tensors) EXPECT_TRUE(at::equal(file.tensors.at(name), tensor)) << name;
  };
  EXPECT_TRUE(std::isnan(job.statistic("a", "pieces")));
  expect_same_tensors(job.with([](Options& o) { o.quip_checkpointed = true; }));
  EXPECT_TRUE(std::isnan(job.statistic("a", "pieces")));  // narrower than 8192
  expect_same_tensors(job.with([](Options& o) { o.quip_checkpointed = true, o.quip_checkpoint_threshold = 200; }));
  EXPECT_EQ(job.statistic("a", "pieces"), 4);
  expect_same_tensors(
      job.with([](Options& o) { o.quip_checkpointed = true, o.quip_checkpoint_threshold = 200, o.quip_checkpoint_segments = 2; }));
  EXPECT_EQ(job.statistic("a", "pieces"), 2);
}

TEST(ConvertToInt8, MergeLora) {
  Int8Conversion job;
  job.options.fp16 = true;
  const at::Tensor weight = testing::read_model(job.options.input_file).tensors.at("a.weight").to(at::kDouble);
  const auto lora = [&](const char* name) {
    const at::Tensor a = at::randn({4, 256}), b = at::randn({64, 4});
    job.write(name, {{"a.lora_A.weight", a}, {"a.lora_B.weight", b}});
    return at::mm(b.to(at::kDouble), a.to(at::kDouble));
  };
  const at::Tensor first = lora("first.safetensors"), second = lora("second.safetensors");
  const auto expect_merged = [&](const ModelFile& file, const at::Tensor& change) {
    const at::Tensor expected = weight.add(change);
    const double error = file.tensors.at("a.weight").to(at::kDouble).sub(expected).abs().max().item<double>();
    EXPECT_LT(error, 1e-3 * expected.abs().max().item<double>());  // F16
  };
  const std::vector<std::string> both = {job.path("first.safetensors"), job.path("second.safetensors")};
  expect_merged(job.with([&](Options& o) { o.merge_lora_path = both[0]; }), first);
  expect_merged(job.with([&](Options& o) { o.merge_lora_path = both[0], o.merge_lora_scale = 0.5; }), first.mul(0.5));
  expect_merged(job.with([&](Options& o) { o.merge_lora_paths = both; }), first.add(second, 0.9));
  expect_merged(job.with([&](Options& o) { o.merge_lora_paths = both, o.merge_lora_dampen = false; }), first.add(second));
  // The single one comes last.
  expect_merged(job.with([&](Options& o) { o.merge_lora_paths = {both[1]}, o.merge_lora_path = both[0]; }), second.add(first, 0.9));
}

TEST(ConvertToInt8, ConverterKwargs) {
  Int8Conversion job;
  const auto with = [&](const char* name, OptionValue value) {
    return job.with([&](Options& o) { o.converter_kwargs[name] = std::move(value); });
  };
  EXPECT_EQ(with("optimizer", std::string("quip")).metadata.at("qmill.quantizer"), "quip");
  EXPECT_TRUE(scale_shape(with("scaling_mode", std::string("tensor")), "a").empty());
  EXPECT_EQ(scale_shape(with("block_size", std::int64_t{32}), "a"), (std::vector<std::int64_t>{2, 8}));
  EXPECT_THAT(marker_of(with("convrot", std::int64_t{64}), "b"), HasSubstr(R"("convrot_groupsize":64)"));
  EXPECT_THAT(marker_of(job.with([](Options& o) {
                o.converter_kwargs = {{"format", std::string("int4")}};
              }),
                        "a"),
              HasSubstr("convrot_w4a4"));
  expect_error(ErrorKind::usage, {"optimiser", "optimizer"}, [&] { with("optimiser", std::string("quip")); });
  expect_error(ErrorKind::usage, {"num_iter", "learned_rounding", "auto"}, [&] { with("num_iter", std::int64_t{10}); });
  expect_error(ErrorKind::unsupported, {"cuda"}, [&] { with("device", std::string("cuda")); });
  expect_error(ErrorKind::usage, {"device", "tpu", "auto, cpu"}, [&] { with("device", std::string("tpu")); });
  expect_error(ErrorKind::usage, {"scaling_mode", "rows"}, [&] { with("scaling_mode", std::string("rows")); });
  expect_error(ErrorKind::usage, {"threads", "-1"}, [&] { with("threads", std::int64_t{-1}); });
  job.options.converter_kwargs["optimizer"] = std::string("learned_rounding");
  job.options.converter_kwargs["num_iter"] = std::int64_t{3};
  EXPECT_EQ(job.run().metadata.at("qmill.quantizer"), "learned_rounding");
  expect_error(ErrorKind::usage, {"num_iter"}, [&] { with("num_iter", std::string("many")); });
}

}  // namespace
}  // namespace qmill
