// What a plan says of itself: its JSON, and the digest that stands for the bytes of the output.
#include "core_support.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <nlohmann/json.hpp>
#include <qmill/core/conversion.h>

namespace qmill {
namespace {

using testing::host;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::write_model;

const std::vector<NamedTensor> kModel = {{"a.weight", random_weight(64, 256, at::kBFloat16, 1)},
                                         {"b.weight", random_weight(32, 64, at::kBFloat16, 2)},
                                         {"b.bias", random_weight(1, 32, at::kFloat, 3).view({32})}};

// The digest of a job after something was changed; the job stays as it is.
template <class Change>
std::string digest_with(Job& job, Change change) {
  const ConvertOptions before = job.options;
  change(job.options);
  const std::string digest = job.plan().digest();
  job.options = before;
  return digest;
}

TEST(PlanDigest, IsTheSameForEveryPlanOfTheSameConversion) {
  Job job(kModel);
  const std::string first = job.plan().digest();
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(first.find_first_not_of("0123456789abcdef"), std::string::npos) << first;
  EXPECT_EQ(job.plan().digest(), first);
  const Plan plan = job.plan();
  EXPECT_EQ(plan.digest(), plan.digest());
  job.run();
  EXPECT_EQ(job.made.digest(), first) << "running a plan does not change it";
  Job other(kModel);
  EXPECT_EQ(other.plan().digest(), first) << "another folder, the same names";
}

TEST(PlanDigest, WhatChangesNoByteHasNoPartInIt) {
  Job job(kModel);
  const std::string digest = job.plan().digest();
  const auto unchanged = [&](const char* what, auto change) { EXPECT_EQ(digest_with(job, change), digest) << what; };
  unchanged("threads", [](ConvertOptions& o) { o.run.threads = 7; });
  unchanged("bytes in flight", [](ConvertOptions& o) { o.run.memory.bytes_in_flight = 1; });
  unchanged("low memory", [](ConvertOptions& o) { o.run.memory.low_memory = true; });
  unchanged("memory mode", [](ConvertOptions& o) { o.run.memory.mode = StreamingMode::off; });
  unchanged("device", [](ConvertOptions& o) { o.run.device = "cpu"; });
  unchanged("sync", [](ConvertOptions& o) { o.run.sync = true; });
  unchanged("overwrite", [](ConvertOptions& o) { o.run.overwrite = true; });
  unchanged("output", [](ConvertOptions& o) { o.output = "elsewhere.safetensors"; });
  unchanged("fail_below", [](ConvertOptions& o) { o.fail_below = 90; });
  unchanged("quality_threshold", [](ConvertOptions& o) { o.quality_threshold = 90; });
  unchanged("remarks", [](ConvertOptions& o) { o.remarks = {"something"}; });
  unchanged("clamping, where nothing is cast", [](ConvertOptions& o) { o.written.clamp_overflow = true; });
  unchanged("an option of another quantizer", [](ConvertOptions& o) {
    o.target.quantizer_options["fp16"]["overflow"] = std::string("clamp");
  });
  unchanged("the name of what rtn is already", [](ConvertOptions& o) { o.target.storage.rotation.mode = Rotation::Mode::automatic; });
}

TEST(PlanDigest, EveryOptionThatCanChangeAByteChangesIt) {
  Job job(kModel);
  std::map<std::string, std::string> digests = {{job.plan().digest(), "as it is"}};
  const auto changed = [&](const char* what, auto change) {
    const auto [found, is_new] = digests.emplace(digest_with(job, change), what);
    EXPECT_TRUE(is_new) << what << " has the digest of: " << found->second;
  };
  changed("format", [](ConvertOptions& o) { o.target.format = "int4"; });
  changed("scaling", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::tensor; });
  changed("axis scaling", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::axis; });
  changed("block scaling", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::block, o.target.storage.block_size = 32; });
  changed("block size", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::block, o.target.storage.block_size = 16; });
  changed("no rotation", [](ConvertOptions& o) { o.target.storage.rotation.mode = Rotation::Mode::off; });
  changed("rotation", [](ConvertOptions& o) { o.target.storage.rotation = {Rotation::Mode::fixed, 16}; });
  changed("legacy names", [](ConvertOptions& o) { o.target.storage.naming = Naming::legacy; });
  changed("legacy input scale",
          [](ConvertOptions& o) { o.target.storage.naming = Naming::legacy, o.target.storage.legacy_input_scale = true; });
  changed("quantizer fp16", [](ConvertOptions& o) { o.target.quantizer = "fp16"; });
  changed("quantizer quip", [](ConvertOptions& o) { o.target.quantizer = "quip"; });
  changed("an option of the quantizer", [](ConvertOptions& o) {
    o.target.quantizer = "fp16";
    o.target.quantizer_options["fp16"]["overflow"] = std::string("clamp");
  });
  changed("seed", [](ConvertOptions& o) { o.seed = 1; });
  changed("exclude", [](ConvertOptions& o) { o.layers.exclude = "^a"; });
  changed("another exclude", [](ConvertOptions& o) { o.layers.exclude = "^b"; });
  changed("custom", [](ConvertOptions& o) { o.layers.custom = {.pattern = "^b", .type = "fp16", .block_size = {}, .scaling = {}}; });
  changed("fallback", [](ConvertOptions& o) { o.layers.exclude = "^a", o.layers.fallback = {.type = "fp16", .block_size = {}}; });
  changed("layer config", [](ConvertOptions& o) { o.layers.config = parse_layer_config(R"({"^a": {"scaling_mode": "tensor"}})"); });
  changed("no metadata", [](ConvertOptions& o) { o.written.save_quant_metadata = false; });
  changed("keep_dtype", [](ConvertOptions& o) { o.written.keep_dtype = DType::f16; });
  changed("clamping, where something is cast", [](ConvertOptions& o) { o.written = {.keep_dtype = DType::f16, .clamp_overflow = true}; });
  changed("keep_dtype bf16", [](ConvertOptions& o) { o.written.keep_dtype = DType::bf16; });
  changed("clamping of BF16", [](ConvertOptions& o) { o.written = {.keep_dtype = DType::bf16, .clamp_overflow = true}; });
  changed("recorded options", [](ConvertOptions& o) { o.recorded = {{"--seed", "0"}}; });
}

TEST(PlanDigest, AnotherSourceChangesIt) {
  Job job(kModel, {{"author", "somebody"}});
  std::map<std::string, std::string> digests = {{job.plan().digest(), "as it is"}};
  const auto changed = [&](const char* what, std::vector<NamedTensor> tensors, const std::map<std::string, std::string>& metadata) {
    write_model(job.options.input, tensors, metadata);
    const auto [found, is_new] = digests.emplace(job.plan().digest(), what);
    EXPECT_TRUE(is_new) << what << " has the digest of: " << found->second;
  };
  const std::map<std::string, std::string> metadata = {{"author", "somebody"}};
  std::vector<NamedTensor> tensors = kModel;
  changed("other metadata", kModel, {{"author", "somebodY"}});
  tensors[0].name = "c.weight";
  changed("another name", tensors, metadata);
  tensors = kModel;
  tensors[0].data = tensors[0].data.view({256, 64});
  changed("another shape of as many bytes", tensors, metadata);
  tensors = kModel;
  tensors[0].data = tensors[0].data.to(at::kHalf);
  changed("another type of as many bytes", tensors, metadata);
  changed("one tensor less", {kModel[0], kModel[1]}, metadata);

  tensors = kModel;
  tensors[0].data = tensors[0].data.mul(2);
  write_model(job.options.input, tensors, metadata);
  EXPECT_EQ(digests.at(job.plan().digest()), "as it is") << "values are not read";
}

TEST(PlanDigest, AnotherHeaderOfALoraChangesIt) {
  Job job(kModel);
  const auto digest_of = [&](const char* alpha) {
    write_model(job.dir / "lora.safetensors",
                {{"a.lora_A.weight", random_weight(4, 256, at::kFloat, 5)}, {"a.lora_B.weight", random_weight(64, 4, at::kFloat, 6)}},
                {{"a_alpha", alpha}});
    job.options.merge.paths = {job.dir / "lora.safetensors"};
    return job.plan().digest();
  };
  EXPECT_EQ(digest_of("8"), digest_of("8"));
  EXPECT_NE(digest_of("8"), digest_of("4"));
}

TEST(PlanDigest, HowADecodedSourceIsStoredChangesIt) {
  Job job;
  job.options.dequantize_source = true;
  const auto digest_of = [&](at::ScalarType type) {
    write_model(job.options.input, {{"a.weight", random_weight(64, 256, at::kFloat, 5).to(type)}, {"a.scale_weight", at::ones({}, at::kFloat)}});
    Conversion conversion(testing::host(), job.options);
    return conversion.plan().digest();
  };
  EXPECT_NE(digest_of(at::kFloat8_e4m3fn), digest_of(at::kFloat8_e5m2));
}

TEST(PlanDigest, ClampingCountsOnlyWhereAValueCouldBeTooLarge) {
  Job job({{"a.weight", random_weight(64, 256, at::kBFloat16, 1)}, {"half.bias", at::ones({4}, at::kHalf)}});
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    job.options.written = {.keep_dtype = dtype};
    EXPECT_EQ(digest_with(job, [](ConvertOptions& o) { o.written.clamp_overflow = true; }), job.plan().digest())
        << "F16 values are in the range of " << dtype_name(dtype);
  }
}

TEST(PlanDigest, AHeuristicCountsByWhatItDecides) {
  Job job(kModel);
  const std::string digest = job.plan().digest();
  EXPECT_EQ(digest_with(job, [](ConvertOptions& o) { o.layers.skip_inefficient = true; }), digest) << "keeps nothing here";
  EXPECT_NE(digest_with(job, [](ConvertOptions& o) { o.layers.skip_inefficient = true, o.quality_threshold = 90; }), digest);
}

TEST(PlanDigest, SmoothquantsAlphaCountsWhereALayerIsSmoothed) {
  Job job(kModel);
  job.options.target.quantizer = "gptq";
  job.options.calibration.data = job.dir / "data.safetensors";
  job.options.calibration.smoothquant = true;
  const auto other_alpha = [](ConvertOptions& o) { o.calibration.smoothquant_alpha = 0.25; };
  write_model(job.options.calibration.data, {{"a.channel_max", at::ones({256})}});
  EXPECT_NE(digest_with(job, other_alpha), job.plan().digest());
  EXPECT_EQ(job.plan().calibration_account->smoothed, std::vector<std::string>{"a"});

  write_model(job.options.calibration.data, {{"a.input", random_weight(20, 256, at::kFloat, 4)}});
  EXPECT_EQ(digest_with(job, other_alpha), job.plan().digest()) << "no layer is smoothed";
}

TEST(PlanDigest, WhatIsKnownOfInputsCounts) {
  Job job(kModel);
  job.options.target.quantizer = "gptq";
  const std::string without = job.plan().digest();
  job.options.calibration.data = job.dir / "data.safetensors";
  write_model(job.options.calibration.data, {{"b.input", random_weight(20, 64, at::kFloat, 4)}});
  const std::string with_rows = job.plan().digest();
  EXPECT_NE(with_rows, without);
  EXPECT_NE(digest_with(job, [](ConvertOptions& o) { o.calibration.samples = 10; }), with_rows);
  EXPECT_EQ(digest_with(job, [](ConvertOptions& o) { o.calibration.samples = 20; }), with_rows) << "all rows, as before";
  EXPECT_NE(digest_with(job, [](ConvertOptions& o) { o.calibration.bias_correction = false; }), with_rows);
  write_model(job.options.calibration.data, {{"b.input", random_weight(21, 64, at::kFloat, 4)}});
  EXPECT_NE(job.plan().digest(), with_rows);
}

TEST(PlanDigest, LorasAndTheirStrengthsCount) {
  Job job(kModel);
  std::map<std::string, std::string> digests = {{job.plan().digest(), "no LoRA"}};
  const std::filesystem::path one = job.dir / "one.safetensors", two = job.dir / "two.safetensors";
  write_model(one, {{"a.lora_A.weight", at::ones({2, 256})}, {"a.lora_B.weight", at::ones({64, 2})}});
  write_model(two, {{"b.lora_A.weight", at::ones({2, 64})}, {"b.lora_B.weight", at::ones({32, 2})}});
  const auto changed = [&](const char* what, const MergeOptions& merge) {
    const auto [found, is_new] = digests.emplace(digest_with(job, [&](ConvertOptions& o) { o.merge = merge; }), what);
    EXPECT_TRUE(is_new) << what << " has the digest of: " << found->second;
  };
  changed("one", {.paths = {one}});
  changed("weaker", {.paths = {one}, .strengths = {0.5}});
  changed("another one", {.paths = {two}});
  changed("both", {.paths = {one, two}});
  changed("in another order", {.paths = {two, one}});
  changed("both, not dampened", {.paths = {one, two}, .dampen = false});
  changed("both, scaled", {.paths = {one, two}, .scale = 0.3});
  EXPECT_EQ(digest_with(job, [&](ConvertOptions& o) { o.merge = {.paths = {one}, .scale = 0.5}; }),
            digest_with(job, [&](ConvertOptions& o) { o.merge = {.paths = {one}, .strengths = {0.5}}; }))
      << "0.5 in one way or the other";
}

TEST(PlanJson, SaysWhatIsDecidedAndWhatIsWritten) {
  Job job(kModel);
  job.options.layers.exclude = "^b";
  job.options.seed = 5;
  const Plan plan = job.plan();
  const nlohmann::json json = nlohmann::json::parse(plan.json());
  EXPECT_EQ(json.at("digest"), plan.digest());
  EXPECT_EQ(json.at("output_bytes"), plan.output.bytes());
  EXPECT_EQ(json.at("tensors"), plan.output.tensors.size());
  EXPECT_EQ(json.at("quantizer"), "rtn");
  EXPECT_EQ(json.at("seed"), 5);
  EXPECT_TRUE(json.at("calibration").is_null());
  EXPECT_TRUE(json.at("merge").is_null());
  ASSERT_EQ(json.at("layers").size(), 2u) << "a bias that is copied is none";
  const nlohmann::json& a = json.at("layers").at(0);
  EXPECT_EQ(a.at("name"), "a");
  EXPECT_EQ(a.at("action"), "quantize");
  EXPECT_EQ(a.at("quantizer"), "rtn");
  EXPECT_EQ(a.at("layout"), "int8 row, rotated 256");
  EXPECT_EQ(a.at("outputs").size(), plan.decisions.at(0).outputs.size());
  EXPECT_EQ(a.at("outputs").at(0), (nlohmann::json{{"name", "a.weight"}, {"dtype", "I8"}, {"shape", {64, 256}}}));
  const nlohmann::json& b = json.at("layers").at(1);
  EXPECT_EQ(b.at("action"), "copy");
  EXPECT_EQ(b.at("rule"), "exclude");
  EXPECT_TRUE(b.at("quantizer").is_null());
  EXPECT_EQ(plan.json(), job.plan().json());
}

}  // namespace
}  // namespace qmill
