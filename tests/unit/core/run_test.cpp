#include "core_support.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::Job;
using testing::ModelFile;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_bytes;
using testing::read_model;
using testing::write_bytes;
using testing::write_model;

// The plain LibTorch expressions of the stored bytes.
at::Tensor scale_of(const at::Tensor& largest) { return largest.div(127).clamp_min(1e-30); }
at::Tensor codes_of(const at::Tensor& weight, const at::Tensor& scale) { return weight.div(scale).round().clamp(-127, 127).to(at::kChar); }

void expect_same(const at::Tensor& stored, const at::Tensor& expected, std::string_view what) {
  ASSERT_EQ(stored.scalar_type(), expected.scalar_type()) << what;
  ASSERT_EQ(stored.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(stored.equal(expected)) << what;
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

TEST(Run, RowScalingStoresThePlainExpression) {
  for (const at::ScalarType type : kTypes) {
    const at::Tensor weight = random_weight(129, 300, type, 1);
    Job job({{"l.weight", weight}});
    job.run();
    const ModelFile out = job.output();
    const at::Tensor w = weight.to(at::kFloat);
    const at::Tensor scale = scale_of(w.abs().amax({1}, true));
    expect_same(out.tensors.at("l.weight_scale"), scale, "scale");
    expect_same(out.tensors.at("l.weight"), codes_of(w, scale), "codes");
    EXPECT_EQ(testing::text_of(out.tensors.at("l.comfy_quant")), R"({"format":"int8_tensorwise"})");
    EXPECT_EQ(out.tensors.size(), 3u);
  }
}

TEST(Run, TensorScalingStoresThePlainExpression) {
  const at::Tensor weight = random_weight(64, 300, at::kBFloat16, 2);
  Job job({{"l.weight", weight}});
  job.options.target.storage.scaling = Scaling::tensor;
  job.run();
  const at::Tensor w = weight.to(at::kFloat);
  const at::Tensor scale = scale_of(w.abs().max());
  expect_same(job.output().tensors.at("l.weight_scale"), scale, "scale");
  expect_same(job.output().tensors.at("l.weight"), codes_of(w, scale), "codes");
}

TEST(Run, AxisScalingStoresThePlainExpression) {
  const at::Tensor weight = random_weight(65, 256, at::kFloat, 3);
  Job job({{"l.weight", weight}});
  job.options.target.storage.scaling = Scaling::axis;
  job.run();
  const at::Tensor scale = scale_of(weight.abs().amax({1}));
  expect_same(job.output().tensors.at("l.weight_scale"), scale, "scale");
  expect_same(job.output().tensors.at("l.weight"), codes_of(weight, scale.unsqueeze(1)), "codes");
  EXPECT_EQ(testing::text_of(job.output().tensors.at("l.comfy_quant")), R"({"format":"int8_axiswise"})");
}

TEST(Run, BlockScalingStoresThePlainExpression) {
  const at::Tensor weight = random_weight(96, 160, at::kHalf, 4);
  Job job({{"l.weight", weight}});
  job.options.target.storage.scaling = Scaling::block;
  job.options.target.storage.block_size = 32;
  job.run();
  const at::Tensor blocks = weight.to(at::kFloat).view({3, 32, 5, 32});
  const at::Tensor scale = scale_of(blocks.abs().amax({1, 3}));
  expect_same(job.output().tensors.at("l.weight_scale"), scale, "scale");
  expect_same(job.output().tensors.at("l.weight"), codes_of(blocks, scale.view({3, 1, 5, 1})).view({96, 160}), "codes");
  EXPECT_EQ(testing::text_of(job.output().tensors.at("l.comfy_quant")), R"({"format":"int8_blockwise","group_size":32})");
}

TEST(Run, LegacyNamesStoreTheSameNumbers) {
  const at::Tensor weight = random_weight(32, 512, at::kFloat, 5);
  Job job({{"l.weight", weight}});
  job.options.target.storage.naming = Naming::legacy;
  job.options.target.storage.legacy_input_scale = true;
  job.run();
  const ModelFile out = job.output();
  const at::Tensor scale = scale_of(weight.abs().amax({1}, true));
  expect_same(out.tensors.at("l.scale_weight"), scale, "scale");
  expect_same(out.tensors.at("l.weight"), codes_of(weight, scale), "codes: legacy files are not rotated");
  expect_same(out.tensors.at("l.scale_input"), at::full({}, 1.0f), "input scale");
  EXPECT_EQ(out.tensors.size(), 3u);
  EXPECT_FALSE(out.metadata.contains("_quantization_metadata"));
}

TEST(Run, RotatedCodesAreTheNearestToTheRotatedWeight) {
  const at::Tensor weight = random_weight(40, 512, at::kBFloat16, 6);
  Job job({{"l.weight", weight}});
  job.run();
  const at::Tensor h4 = at::tensor({1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., 1.}, at::kDouble).view({4, 4}).div(2);
  const at::Tensor h16 = at::kron(h4, h4);
  const at::Tensor rotated = weight.to(at::kDouble).view({40, 2, 256}).matmul(at::kron(h16, h16)).view({40, 512});
  const ModelFile out = job.output();
  const at::Tensor scale = out.tensors.at("l.weight_scale").to(at::kDouble);
  EXPECT_LT(rotated.abs().amax({1}, true).div(127).sub(scale).div(scale).abs().max().item<double>(), 1e-6);
  // F32 sums in another order: codes may go the other way only where the value lies between two codes.
  const at::Tensor distance = rotated.div(scale).sub(out.tensors.at("l.weight").to(at::kDouble)).abs();
  EXPECT_LT(distance.max().item<double>(), 0.5 + 1e-3);
  EXPECT_EQ(testing::text_of(out.tensors.at("l.comfy_quant")), R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":256})");
}

TEST(Run, ZeroRowsGetTheSmallestScaleAndCodesZero) {
  at::Tensor weight = random_weight(16, 48, at::kFloat, 7);
  weight[3].zero_();
  Job job({{"l.weight", weight}});
  job.run();
  EXPECT_EQ(job.output().tensors.at("l.weight_scale")[3].item<float>(), 1e-30f);
  EXPECT_EQ(job.output().tensors.at("l.weight")[3].abs().max().item<int>(), 0);
}

TEST(Run, Fp16StoresTheCast) {
  const at::Tensor weight = random_weight(33, 70, at::kFloat, 8);
  Job job({{"l.weight", weight}});
  job.options.target.quantizer = "fp16";
  job.run();
  expect_same(job.output().tensors.at("l.weight"), weight.to(at::kHalf), "values");
  EXPECT_EQ(job.output().tensors.size(), 1u);
}

TEST(Run, KeepDtypeCastsWhatIsNotQuantized) {
  const at::Tensor bias = random_weight(1, 40, at::kFloat, 9).view({40});
  const at::Tensor ids = at::arange(5, at::kLong);
  Job job({{"l.weight", random_weight(40, 32, at::kFloat, 10)}, {"l.bias", bias}, {"ids", ids}});
  job.options.written.keep_dtype = DType::bf16;
  job.run();
  expect_same(job.output().tensors.at("l.bias"), bias.to(at::kBFloat16), "bias");
  expect_same(job.output().tensors.at("ids"), ids, "integers are no floats");
}

TEST(Run, KeepDtypeRefusesOverflowUnlessItMayClamp) {
  const at::Tensor bias = at::tensor({1.0f, 1e6f, -1e6f});
  Job job({{"l.weight", random_weight(40, 32, at::kFloat, 10)}, {"l.bias", bias}});
  job.options.written.keep_dtype = DType::f16;
  expect_error(ErrorKind::numeric, {"'l.bias'", "2 of 3", "F16"}, [&] { job.run(); });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  job.options.written.clamp_overflow = true;
  job.run();
  expect_same(job.output().tensors.at("l.bias"), at::tensor({1.0f, 65504.0f, -65504.0f}).to(at::kHalf), "clamped");
}

// Copied tensors of every type, by their raw bytes.
std::string every_type_model(const fs::path& path) {
  std::string json = "{", data;
  const auto add = [&](const std::string& name, const char* dtype, const std::string& shape, std::size_t bytes) {
    json += (json.size() > 1 ? "," : "") + ("\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
                                            std::to_string(data.size()) + ",");
    for (std::size_t i = 0; i < bytes; ++i) data += static_cast<char>(i * 37 + name.size() * 11);
    json += std::to_string(data.size()) + "]}";
  };
  const char* types[] = {"BOOL", "U8",  "I8",  "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16",
                         "BF16", "I32", "U32", "F32",     "I64",     "U64",     "F64", "C64"};
  const std::size_t sizes[] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8};
  for (std::size_t i = 0; i < std::size(types); ++i) {
    add(std::string("t.") + types[i], types[i], "[3,5]", 15 * sizes[i]);
    add(std::string("empty.") + types[i], types[i], "[0,5]", 0);
    add(std::string("scalar.") + types[i], types[i], "[]", sizes[i]);
  }
  add("t.F4", "F4", "[3,4]", 6);
  add("t.F6_E2M3", "F6_E2M3", "[4,4]", 12);
  add("t.F6_E3M2", "F6_E3M2", "[4]", 3);
  add("l.weight", "F32", "[0,16]", 0);
  const std::size_t weight_at = data.size();
  add("m.weight", "F32", "[16,16]", 1024);
  const at::Tensor weight = random_weight(16, 16, at::kFloat, 11);
  data.replace(weight_at, 1024, static_cast<const char*>(weight.const_data_ptr()), 1024);
  json += "}";
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> (8 * i) & 0xff);
  write_bytes(path, length + json + data);
  return data;
}

TEST(Run, CopiedTensorsOfEveryTypeKeepTheirBytes) {
  Job job;
  every_type_model(job.options.input);
  job.run();
  const auto before = testing::host().open(job.options.input);
  const auto after = testing::host().open(job.options.output);
  std::map<std::string, std::string> stored;
  for (std::size_t i = 0; i < after->tensors().size(); ++i) {
    std::string bytes(static_cast<std::size_t>(after->tensors()[i].bytes()), '\0');
    after->read(i, std::as_writable_bytes(std::span(bytes)));
    stored[after->tensors()[i].name] = bytes;
  }
  int compared = 0;
  for (std::size_t i = 0; i < before->tensors().size(); ++i) {
    const TensorInfo& info = before->tensors()[i];
    if (info.name == "m.weight") continue;
    std::string bytes(static_cast<std::size_t>(info.bytes()), '\0');
    before->read(i, std::as_writable_bytes(std::span(bytes)));
    ASSERT_TRUE(stored.contains(info.name)) << info.name;
    EXPECT_EQ(stored.at(info.name), bytes) << info.name;
    ++compared;
  }
  EXPECT_EQ(compared, 17 * 3 + 4);
}

// Layers of many shapes and types, and things beside them.
std::vector<NamedTensor> mixed_model() {
  std::vector<NamedTensor> tensors;
  const std::int64_t shapes[][2] = {{64, 1024}, {7, 5}, {1, 1}, {129, 300}, {256, 256}, {3, 4096}, {500, 33}};
  std::uint64_t seed = 100;
  for (const auto& shape : shapes)
    for (const at::ScalarType type : kTypes) {
      const std::string base = "b" + std::to_string(seed);
      tensors.push_back({base + ".weight", random_weight(shape[0], shape[1], type, seed)});
      tensors.push_back({base + ".bias", random_weight(1, shape[0], type, seed + 1).view({shape[0]})});
      seed += 2;
    }
  tensors.push_back({"ids", at::arange(1000, at::kLong)});
  tensors.push_back({"flags", at::tensor({1, 0, 1}).to(at::kBool)});
  tensors.push_back({"none.weight", at::zeros({0, 8})});
  tensors.push_back({"conv.weight", random_weight(8, 27, at::kHalf, 7).view({8, 3, 3, 3})});
  return tensors;
}

TEST(Run, TheBytesDependNeitherOnThreadsNorOnMemory) {
  Job job(mixed_model());
  job.options.run.overwrite = true;
  job.options.run.threads = 1;
  job.run();
  const std::string expected = read_bytes(job.options.output);
  ASSERT_GT(expected.size(), 100'000u);
  for (const int threads : {1, 2, 4, 16})
    for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{100'000}, std::uint64_t{1} << 40}) {
      job.options.run.threads = threads;
      job.options.run.memory.bytes_in_flight = bytes;
      job.run();
      EXPECT_TRUE(read_bytes(job.options.output) == expected) << threads << " threads, " << bytes << " bytes in flight";
    }
}

TEST(Run, TwoRunsGiveTheSameBytes) {
  Job job(mixed_model());
  job.options.run.overwrite = true;
  job.options.run.sync = true;
  job.run();
  const std::string first = read_bytes(job.options.output);
  job.run();
  EXPECT_TRUE(read_bytes(job.options.output) == first);
}

TEST(Run, ShardsGiveWhatOneFileGives) {
  const std::vector<NamedTensor> tensors = mixed_model();
  Job whole(tensors, {{"format", "pt"}});
  whole.run();
  Job shards;
  const fs::path folder = shards.dir / "model";
  fs::create_directory(folder);
  const auto middle = tensors.begin() + 11;
  write_model(folder / "model-00001-of-00002.safetensors", {tensors.begin(), middle}, {{"format", "pt"}});
  write_model(folder / "model-00002-of-00002.safetensors", {middle, tensors.end()}, {{"format", "pt"}});
  shards.options.input = folder;
  shards.run();
  const ModelFile one = whole.output(), two = shards.output();
  EXPECT_EQ(one.order, two.order);
  for (const auto& [name, tensor] : one.tensors) EXPECT_TRUE(tensor.equal(two.tensors.at(name))) << name;
  std::map<std::string, std::string> metadata = two.metadata;
  EXPECT_EQ(metadata.at("qmill.source"), "model");
  metadata["qmill.source"] = one.metadata.at("qmill.source");
  EXPECT_EQ(metadata, one.metadata);
}

TEST(Run, TheFileIsAsLongAsThePlanSays) {
  Job job(mixed_model());
  const ConvertReport report = job.run();
  EXPECT_EQ(fs::file_size(job.options.output), job.made.output.bytes());
  EXPECT_EQ(report.bytes_written, job.made.output.bytes());
  EXPECT_EQ(job.files(), (std::vector<std::string>{"in.safetensors", "out.safetensors"}));
}

// Independent of the decoder under test: codes times scales, in double precision.
double sqnr_db(const at::Tensor& weight, const at::Tensor& decoded) {
  const at::Tensor x = weight.to(at::kDouble);
  return 10 * std::log10(x.square().sum().item<double>() / x.sub(decoded).square().sum().item<double>());
}

TEST(Run, TheReportedQualityIsThatOfTheStoredBytes) {
  const std::vector<NamedTensor> tensors = {{"a.weight", random_weight(64, 300, at::kFloat, 20)},
                                            {"b.weight", random_weight(129, 77, at::kBFloat16, 21).add(3)}};
  Job job(tensors);
  const ConvertReport report = job.run();
  const ModelFile out = job.output();
  ASSERT_EQ(report.layers.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const LayerQuality& quality = report.layers[i].quality;
    const std::string base(1, static_cast<char>('a' + i));
    EXPECT_EQ(quality.name, base);
    EXPECT_EQ(report.layers[i].quantizer, "rtn");
    const at::Tensor decoded = out.tensors.at(base + ".weight").to(at::kDouble).mul(out.tensors.at(base + ".weight_scale").to(at::kDouble));
    const at::Tensor error = tensors[i].data.to(at::kDouble).sub(decoded);
    ASSERT_TRUE(quality.sqnr_db);
    EXPECT_NEAR(*quality.sqnr_db, sqnr_db(tensors[i].data, decoded), 0.01);
    EXPECT_NEAR(quality.mse, error.square().mean().item<double>(), 1e-4 * quality.mse);
    EXPECT_NEAR(quality.max_error, error.abs().max().item<double>(), 1e-5);
  }
}

TEST(Run, TheReportedQualityOfARotatedLayerIsInTheOriginalBasis) {
  const at::Tensor weight = random_weight(48, 256, at::kFloat, 22);
  Job job({{"a.weight", weight}});
  const ConvertReport report = job.run();
  const at::Tensor h4 = at::tensor({1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., -1., 1., 1., 1.}, at::kDouble).view({4, 4}).div(2);
  const at::Tensor h16 = at::kron(h4, h4);
  const at::Tensor decoded = job.output()
                                 .tensors.at("a.weight")
                                 .to(at::kDouble)
                                 .mul(job.output().tensors.at("a.weight_scale").to(at::kDouble))
                                 .matmul(at::kron(h16, h16));
  EXPECT_NEAR(*report.layers.at(0).quality.sqnr_db, sqnr_db(weight, decoded), 0.01);
}

TEST(Run, ALayerWithoutErrorHasNoSqnr) {
  Job job({{"a.weight", at::zeros({16, 16})}});
  const ConvertReport report = job.run();
  EXPECT_FALSE(report.layers.at(0).quality.sqnr_db);
  EXPECT_EQ(report.layers.at(0).quality.max_error, 0);
}

TEST(Run, NanAndInfinityAreRefusedWithTheirTensorAndLeaveNothing) {
  for (const char* quantizer : {"rtn", "fp16"})
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
      for (const at::ScalarType type : kTypes)
        for (const std::int64_t columns : {50, 256}) {
          at::Tensor weight = random_weight(30, columns, at::kFloat, 23);
          weight[17][49] = bad;
          Job job({{"good.weight", random_weight(30, 50, type, 24)},
                   {"sick.weight", weight.to(type)},
                   {"also_good.weight", random_weight(30, 50, type, 24)}});
          job.options.target.quantizer = quantizer;
          expect_error(ErrorKind::numeric, {"'sick.weight'", "1 of", "not finite"}, [&] {
            // F16 is stored as it is, so that fp16 has nothing to refuse there.
            if (quantizer == std::string_view("fp16") && type == at::kHalf)
              throw Error(ErrorKind::numeric, "'sick.weight' 1 of 1 not finite");
            job.run();
          });
          EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
        }
}

TEST(Run, NanInATensorThatIsCopiedIsCopied) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 25)}, {"a.bias", at::full({4}, std::nan(""))}});
  EXPECT_NO_THROW(job.run());
}

TEST(Run, Fp16RefusesOverflowUnlessItMayClamp) {
  at::Tensor weight = random_weight(20, 20, at::kFloat, 26);
  weight[3][4] = 1e6;
  Job job({{"a.weight", weight}});
  job.options.target.quantizer = "fp16";
  expect_error(ErrorKind::numeric, {"'a.weight'", "1 of 400", "65504"}, [&] { job.run(); });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  job.options.target.quantizer_options["fp16"]["overflow"] = std::string("clamp");
  const ConvertReport report = job.run();
  EXPECT_EQ(job.output().tensors.at("a.weight")[3][4].item<float>(), 65504.0f);
  ASSERT_EQ(report.layers.at(0).notes.size(), 1u);
  EXPECT_NE(report.layers[0].notes[0].find("1 value clamped"), std::string::npos);
}

TEST(Run, ASourceThatShrinksAfterThePlanIsAnErrorAndLeavesNothing) {
  for (const double part : {0.99, 0.5, 0.0}) {
    Job job(mixed_model());
    const Plan plan = job.plan();
    fs::resize_file(job.options.input, static_cast<std::uintmax_t>(part * static_cast<double>(fs::file_size(job.options.input))));
    expect_error(ErrorKind::input, {"in.safetensors"}, [&] { run_plan(*job.source, plan); });
    EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  }
}

TEST(Run, AMissingFolderIsNamed) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.output = job.dir / "no/such/folder/out.safetensors";
  expect_error(ErrorKind::io, {"no/such/folder", "does not exist"}, [&] { job.run(); });
  EXPECT_FALSE(fs::exists(job.dir / "no"));
}

TEST(Run, AFolderThatIsAFileIsAnError) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.output = job.options.input / "out.safetensors";
  const std::string before = read_bytes(job.options.input);
  expect_error(ErrorKind::io, {"out.safetensors"}, [&] { job.run(); });
  EXPECT_EQ(read_bytes(job.options.input), before);
}

TEST(Run, AFolderThatCannotBeWrittenIsAnErrorOfTheSystem) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.output = "/proc/qmill-out.safetensors";  // also root cannot make files there
  expect_error(ErrorKind::io, {"/proc/qmill-out.safetensors"}, [&] { job.run(); });
}

TEST(Run, AnOutputThatIsAFolderIsAnError) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.output = job.dir.path();
  job.options.run.overwrite = true;
  expect_error(ErrorKind::usage, {"folder"}, [&] { job.run(); });
}

TEST(Run, AnOutputThatIsTheInputIsRefusedHoweverItIsNamed) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.run.overwrite = true;
  const std::string before = read_bytes(job.options.input);
  fs::create_symlink(job.options.input, job.dir / "symbolic.safetensors");
  fs::create_hard_link(job.options.input, job.dir / "hard.safetensors");
  fs::create_symlink(job.dir.path(), job.dir / "folder");
  for (const fs::path& output : {job.options.input, job.dir / "symbolic.safetensors", job.dir / "hard.safetensors",
                                 job.dir / "./in.safetensors", job.dir / "folder/in.safetensors", job.dir / "folder/../in.safetensors"}) {
    if (!fs::exists(output)) continue;
    job.options.output = output;
    expect_error(ErrorKind::usage, {"same file as the input"}, [&] { job.run(); });
    EXPECT_EQ(read_bytes(job.options.input), before) << output;
  }
}

TEST(Run, AnOutputThatIsAShardOrTheIndexIsRefused) {
  Job job;
  const fs::path folder = job.dir / "model";
  fs::create_directory(folder);
  write_model(folder / "m-1.safetensors", {{"a.weight", random_weight(16, 16, at::kFloat, 1)}});
  write_model(folder / "m-2.safetensors", {{"b.weight", random_weight(16, 16, at::kFloat, 1)}});
  const fs::path index = folder / "m.safetensors.index.json";
  write_bytes(index, R"({"weight_map": {"a.weight": "m-1.safetensors", "b.weight": "m-2.safetensors"}})");
  job.options.run.overwrite = true;
  for (const fs::path& input : {folder, index}) {
    job.options.input = input;
    job.options.output = folder / "m-2.safetensors";
    expect_error(ErrorKind::usage, {"same file as the input"}, [&] { job.run(); });
  }
  const std::string before = read_bytes(index);
  job.options.output = index;
  expect_error(ErrorKind::usage, {"same file as the input"}, [&] { job.run(); });
  EXPECT_EQ(read_bytes(index), before);
}

TEST(Run, AnExistingOutputStaysWithoutOverwrite) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  write_bytes(job.options.output, "precious");
  expect_error(ErrorKind::usage, {"exists already", "`overwrite`"}, [&] { job.run(); });
  EXPECT_EQ(read_bytes(job.options.output), "precious");
  job.options.run.overwrite = true;
  EXPECT_NO_THROW(job.run());
  EXPECT_GT(fs::file_size(job.options.output), 100u);
}

TEST(Run, AFailedOverwriteLeavesTheOldFile) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}, {"b.weight", at::full({16, 16}, std::nan(""), at::kFloat)}});
  write_bytes(job.options.output, "precious");
  job.options.run.overwrite = true;
  EXPECT_THROW(job.run(), Error);
  EXPECT_EQ(read_bytes(job.options.output), "precious");
  EXPECT_EQ(job.files(), (std::vector<std::string>{"in.safetensors", "out.safetensors"}));
}

TEST(Run, OverwritingAFileThroughALinkKeepsTheLink) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  write_bytes(job.dir / "real", "old");
  fs::create_symlink("real", job.options.output);
  job.options.run.overwrite = true;
  job.run();
  EXPECT_TRUE(fs::is_symlink(job.options.output));
  EXPECT_GT(fs::file_size(job.dir / "real"), 100u);
}

TEST(Run, ARelativeOutputIsInTheCurrentFolder) {
  Job job({{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  const fs::path before = fs::current_path();
  fs::current_path(job.dir.path());
  job.options.input = "in.safetensors";
  job.options.output = "out.safetensors";
  try {
    job.run();
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
  }
  fs::current_path(before);
  EXPECT_TRUE(fs::exists(job.dir / "out.safetensors"));
}

TEST(Run, FileNamesNeedNotBeUnicode) {
  Job job;
  job.options.input = job.dir / "mod\xe8le.safetensors";  // Latin-1
  write_model(job.options.input, {{"a.weight", random_weight(16, 16, at::kFloat, 27)}});
  job.options.output = job.dir / "sortie\xe8.safetensors";
  EXPECT_NO_THROW(job.run());
  EXPECT_TRUE(fs::exists(job.options.output));
}

TEST(Run, CancelledBeforeItStartsItLeavesNothing) {
  Job job(mixed_model());
  const std::atomic<bool> cancel = true;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { job.run({{}, &cancel}); });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Run, CancelledInTheMiddleItLeavesNothing) {
  for (const std::size_t after : {1u, 3u, 10u}) {
    Job job(mixed_model());
    job.options.run.keep_part = false;
    std::atomic<bool> cancel = false;
    std::size_t calls = 0;
    expect_error(ErrorKind::cancelled, {"interrupted"}, [&] {
      job.run({[&](const Progress&) { cancel = cancel || ++calls >= after; }, &cancel});
    });
    EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  }
}

TEST(Run, CancelledAfterTheLastTensorItPublishesNothing) {
  Job job(mixed_model());
  job.options.run.keep_part = false;
  std::atomic<bool> cancel = false;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] {
    job.run({[&](const Progress& progress) { cancel = progress.bytes_done == progress.bytes; }, &cancel});
  });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Run, ProgressGoesUpToTheWholeFile) {
  Job job(mixed_model());
  std::vector<Progress> seen;
  job.run({[&](const Progress& progress) { seen.push_back(progress); }, nullptr});
  ASSERT_FALSE(seen.empty());
  for (std::size_t i = 1; i < seen.size(); ++i) {
    EXPECT_GE(seen[i].bytes_done, seen[i - 1].bytes_done);
    EXPECT_GE(seen[i].layers_done, seen[i - 1].layers_done);
  }
  EXPECT_EQ(seen.back().bytes_done, fs::file_size(job.options.output));
  EXPECT_EQ(seen.back().bytes, seen.back().bytes_done);
  EXPECT_EQ(seen.back().layers_done, job.made.count(Action::quantize));
  EXPECT_EQ(seen.back().layers, seen.back().layers_done);
}

TEST(Run, AProgressHookThatThrowsEndsTheRunAndLeavesNothing) {
  Job job(mixed_model());
  EXPECT_THROW(job.run({[](const Progress&) { throw std::runtime_error("the terminal is gone"); }, nullptr}), std::runtime_error);
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Run, ALayerBelowTheRequiredQualityPublishesNothing) {
  Job job({{"good.weight", random_weight(64, 64, at::kFloat, 30)}, {"bad.weight", random_weight(64, 64, at::kFloat, 31)}});
  job.options.fail_below = 20;
  EXPECT_NO_THROW(job.run());
  fs::remove(job.options.output);
  job.options.fail_below = 90;
  try {
    job.run();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const QualityError& error) {
    EXPECT_NE(std::string(error.what()).find("good"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("90.00"), std::string::npos) << error.what();
  }
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
}

TEST(Run, AFailureInOneOfManyLayersEndsQuicklyForEveryNumberOfThreads) {
  for (const int threads : {1, 2, 4})
    for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{1} << 30}) {
      std::vector<NamedTensor> tensors = {{"a0.weight", at::full({64, 64}, std::nan(""), at::kFloat)}};
      for (int i = 1; i < 200; ++i) tensors.push_back({"a" + std::to_string(i) + ".weight", at::full({64, 64}, 1.0f)});
      Job job(tensors);
      job.options.run.threads = threads;
      job.options.run.memory.bytes_in_flight = bytes;
      expect_error(ErrorKind::numeric, {"'a0.weight'"}, [&] { job.run(); });
      EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
    }
}

TEST(Run, SeveralRunsMayGoOnAtOnce) {
  const std::vector<NamedTensor> model = mixed_model();
  Job expected(model);
  expected.run();
  const std::string bytes = read_bytes(expected.options.output);
  std::atomic<int> same = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      Job job(model);
      job.run();
      if (read_bytes(job.options.output) == bytes) ++same;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 3);
}

}  // namespace
}  // namespace qmill
