#include <qmill/core/decoded_source.h>

#include "core_support.h"

#include <qmill/core/conversion.h>
#include <qmill/core/dequantize.h>

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <thread>

namespace qmill {
namespace {

using testing::bytes_of;
using testing::expect_error;
using testing::host;
using testing::Job;
using testing::kRowMarker;
using testing::ModelFile;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_model;
using testing::TempDir;
using testing::write_model;

// A file with a layer of each kind that stands on its own, and what is none.
struct QuantizedFile {
  TempDir dir;
  std::filesystem::path path = dir / "q.safetensors";
  at::Tensor codes = random_weight(5, 6, at::kFloat, 1).mul(40).round().clamp(-127, 127).to(at::kChar);
  at::Tensor scales = random_weight(5, 1, at::kFloat, 2).abs();
  at::Tensor floats = random_weight(4, 8, at::kFloat, 3).to(at::kFloat8_e4m3fn);
  at::Tensor plain = random_weight(3, 8, at::kBFloat16, 4);
  std::vector<NamedTensor> tensors = {{"i.weight", codes},
                                      {"i.weight_scale", scales},
                                      {"i.comfy_quant", bytes_of(kRowMarker)},
                                      {"i.input_scale", at::ones({})},
                                      {"f.weight", floats},
                                      {"f.scale_weight", at::full({}, 0.3f)},
                                      {"f.scale_input", at::ones({})},
                                      {"f.bias", at::ones({4})},
                                      {"p.weight", plain},
                                      {"p.extra", at::ones({})},
                                      {"p8.weight", floats},
                                      {"scaled_fp8", at::zeros({0}).to(at::kFloat8_e4m3fn)}};
  std::map<std::string, std::string> metadata = {
      {"_quantization_metadata", R"({"format_version":"1.0","layers":{"i":)" + kRowMarker + "}}"}, {"qmill.seed", "0"}, {"author", "somebody"}};

  std::unique_ptr<TensorSource> open() {
    write_model(path, tensors, metadata);
    return decoded(host(), host().open(path));
  }
};

std::size_t index_of(const TensorSource& source, const std::string& name) {
  for (std::size_t i = 0; i < source.tensors().size(); ++i)
    if (source.tensors()[i].name == name) return i;
  throw std::runtime_error("no tensor " + name);
}

TEST(DecodedSource, LayersAreF32AndTheirCompanionsAreHidden) {
  QuantizedFile file;
  const auto source = file.open();
  const std::vector<TensorInfo> expected = {{"i.weight", DType::f32, {5, 6}}, {"f.weight", DType::f32, {4, 8}},
                                            {"f.bias", DType::f32, {4}},      {"p.weight", DType::bf16, {3, 8}},
                                            {"p.extra", DType::f32, {}},      {"p8.weight", DType::f8_e4m3, {4, 8}}};
  EXPECT_EQ(source->tensors(), expected);
  EXPECT_EQ(source->metadata(), (std::map<std::string, std::string>{{"author", "somebody"}}));
  EXPECT_EQ(source->files(), std::vector{file.path});
  EXPECT_EQ(formats_text(decoded_layers(*source)), "float8_e4m3fn, 1 layer; int8_tensorwise, 1 layer");
}

TEST(DecodedSource, EveryRangeIsThatOfTheDecodedWeight) {
  QuantizedFile file;
  const auto source = file.open();
  const std::pair<const char*, at::Tensor> layers[] = {{"i.weight", file.codes.to(at::kFloat).mul(file.scales).contiguous()},
                                                       {"f.weight", file.floats.to(at::kFloat).mul(0.3f).contiguous()}};
  for (const auto& [name, values] : layers) {
    const std::size_t index = index_of(*source, name);
    const auto* bytes = static_cast<const std::byte*>(values.const_data_ptr());
    EXPECT_EQ(source->extent(index), std::nullopt);
    for (std::size_t begin = 0; begin <= values.nbytes(); ++begin)
      for (std::size_t end = begin; end <= values.nbytes(); ++end) {
        std::vector<std::byte> part(end - begin);
        source->read_part(index, begin, part);
        ASSERT_TRUE(std::equal(part.begin(), part.end(), bytes + begin)) << name << ' ' << begin << ' ' << end;
      }
  }
}

TEST(DecodedSource, WhatIsNoLayerIsReadAndCopiedFromTheFile) {
  QuantizedFile file;
  const auto source = file.open();
  const std::size_t index = index_of(*source, "p.weight");
  const Extent extent = source->extent(index).value();
  const std::string expected(static_cast<const char*>(file.plain.const_data_ptr()), file.plain.nbytes());
  EXPECT_EQ(testing::read_bytes(extent.file).substr(extent.offset, extent.bytes), expected);
  std::string all(expected.size(), '\0');
  source->read(index, std::as_writable_bytes(std::span(all)));
  EXPECT_EQ(all, expected);
}

TEST(DecodedSource, LayersAreReadFromSeveralThreads) {
  QuantizedFile file;
  const auto source = file.open();
  const at::Tensor expected[] = {file.codes.to(at::kFloat).mul(file.scales).contiguous(),
                                 file.floats.to(at::kFloat).mul(0.3f).contiguous()};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 300; ++i) {
        const at::Tensor& values = expected[(thread + i) % 2];
        std::vector<std::byte> all(values.nbytes());
        source->read(static_cast<std::size_t>((thread + i) % 2), all);
        ASSERT_EQ(std::memcmp(all.data(), values.const_data_ptr(), all.size()), 0);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(DecodedSource, AModelThatIsNotQuantizedStaysAsItIs) {
  TempDir dir;
  write_model(dir / "m.safetensors", {{"a.weight", random_weight(4, 4, at::kHalf, 1)}}, {{"qmill.seed", "1"}});
  const auto source = decoded(host(), host().open(dir / "m.safetensors"));
  EXPECT_EQ(source->tensors(), (std::vector<TensorInfo>{{"a.weight", DType::f16, {4, 4}}}));
  EXPECT_EQ(source->metadata().at("qmill.seed"), "1");
  EXPECT_TRUE(decoded_layers(*source).empty());
}

TEST(DecodedSource, WhatNoFormatDecodesIsNamed) {
  const auto reject = [](ErrorKind kind, std::initializer_list<std::string_view> parts, const std::vector<NamedTensor>& tensors) {
    TempDir dir;
    write_model(dir / "q.safetensors", tensors);
    expect_error(kind, parts, [&] { decoded(host(), host().open(dir / "q.safetensors")); });
  };
  const at::Tensor codes = at::ones({4, 4}, at::kChar);
  const at::Tensor floats = at::ones({4, 4}).to(at::kFloat8_e4m3fn);
  const at::Tensor one = at::ones({});
  reject(ErrorKind::unsupported, {"'l'", "'awq_w4a16'", "no format"},
         {{"l.weight", codes}, {"l.weight_scale", one}, {"l.comfy_quant", bytes_of(R"({"format":"awq_w4a16"})")}});
  reject(ErrorKind::unsupported, {"'l.weight'", "'l.weight_scale_inv'"},
         {{"l.weight", floats}, {"l.weight_scale_inv", at::ones({4, 1}, at::kByte)}});
  reject(ErrorKind::unsupported, {"'l.weight'", "'l.weight_scale'"}, {{"l.weight", at::ones({4, 4}, at::kByte)}, {"l.weight_scale", one}});
  reject(ErrorKind::unsupported, {"'l'", "'l.pre_quant_scale'"},
         {{"l.weight", floats}, {"l.weight_scale", one}, {"l.pre_quant_scale", at::ones({4})}});
  reject(ErrorKind::unsupported, {"'l'", "'l.smooth_factors'"},
         {{"l.weight", floats}, {"l.weight_scale", one}, {"l.smooth_factors", at::ones({4})}});
  reject(ErrorKind::input, {"'l'"}, {{"l.weight", codes}, {"l.comfy_quant", bytes_of(kRowMarker)}});
  reject(ErrorKind::input, {"'l'"}, {{"l.comfy_quant", bytes_of(kRowMarker)}});
  reject(ErrorKind::input, {"'l'"}, {{"l.weight", codes}, {"l.comfy_quant", bytes_of("{")}});
}

struct DequantizeJob {
  QuantizedFile file;
  DequantizeOptions options;

  explicit DequantizeJob(DType dtype = DType::bf16) {
    write_model(file.path, file.tensors, file.metadata);
    options.input = file.path;
    options.output = file.dir / "out.safetensors";
    options.dtype = dtype;
    options.run.threads = 2;
    options.run.sync = false;
  }

  ModelFile run() {
    dequantize(host(), options);
    return read_model(options.output);
  }
};

TEST(Dequantize, LayersAreCastAndTheRestIsCopied) {
  for (const auto& [dtype, type] :
       {std::pair{DType::f32, at::kFloat}, std::pair{DType::bf16, at::kBFloat16}, std::pair{DType::f16, at::kHalf}}) {
    DequantizeJob job(dtype);
    const ModelFile out = job.run();
    const QuantizedFile& file = job.file;
    ASSERT_EQ(out.tensors.size(), 6u);
    EXPECT_TRUE(out.tensors.at("i.weight").equal(file.codes.to(at::kFloat).mul(file.scales).to(type)));
    EXPECT_TRUE(out.tensors.at("f.weight").equal(file.floats.to(at::kFloat).mul(0.3f).to(type)));
    EXPECT_TRUE(out.tensors.at("p.weight").equal(file.plain));
    EXPECT_EQ(out.tensors.at("p8.weight").scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_EQ(out.metadata.at("author"), "somebody");
    EXPECT_EQ(out.metadata.at("qmill.dequantized"), dtype_name(dtype));
    EXPECT_EQ(out.metadata.at("qmill.source"), "q.safetensors");
    EXPECT_FALSE(out.metadata.contains("_quantization_metadata"));
    EXPECT_FALSE(out.metadata.contains("qmill.seed"));
  }
}

TEST(Dequantize, TheBytesDependNeitherOnThreadsNorOnMemory) {
  DequantizeJob job;
  job.run();
  const std::string expected = testing::read_bytes(job.options.output);
  job.options.run.overwrite = true;
  for (const int threads : {1, 3})
    for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{1} << 30}) {
      job.options.run.threads = threads;
      job.options.run.memory.bytes_in_flight = bytes;
      job.run();
      EXPECT_TRUE(testing::read_bytes(job.options.output) == expected) << threads << ' ' << bytes;
    }
}

TEST(Dequantize, ValuesBeyondTheTypeAreAnErrorWithTheirCount) {
  DequantizeJob job(DType::f16);
  job.file.tensors[5].data = at::full({}, 1e6f);
  write_model(job.file.path, job.file.tensors, job.file.metadata);
  expect_error(ErrorKind::numeric, {"q.safetensors'", "'f.weight'", "of 32 values", "F16", "`dtype`"}, [&] { job.run(); });
  EXPECT_FALSE(std::filesystem::exists(job.options.output));
}

TEST(Dequantize, ValuesThatAreNotFiniteAreAnErrorWithTheirCount) {
  // Rows of 6 codes. Infinity times a code of 0 is NaN, and so not finite, too.
  const auto with_scale = [](DequantizeJob& job, float first, float last) {
    job.file.tensors[1].data = job.file.scales.clone();
    job.file.tensors[1].data.mutable_data_ptr<float>()[0] = first;
    job.file.tensors[1].data.mutable_data_ptr<float>()[4] = last;
    write_model(job.file.path, job.file.tensors, job.file.metadata);
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    DequantizeJob job(dtype);
    with_scale(job, 1, kNan);
    expect_error(ErrorKind::numeric, {"q.safetensors'", "'i.weight'", "6 of 30 values are not finite"}, [&] { job.run(); });
    with_scale(job, -kInfinity, kNan);
    expect_error(ErrorKind::numeric, {"q.safetensors'", "'i.weight'", "12 of 30 values are not finite"}, [&] { job.run(); });
    EXPECT_FALSE(std::filesystem::exists(job.options.output));
    with_scale(job, 1, 1);
    EXPECT_EQ(job.run().tensors.size(), 6u);
  }
}

TEST(Dequantize, ThereMustBeSomethingToDecode) {
  DequantizeJob job;
  write_model(job.file.path, {{"a.weight", random_weight(4, 4, at::kHalf, 1)}});
  expect_error(ErrorKind::input, {"q.safetensors'", "no layer of it is quantized"}, [&] { job.run(); });
  EXPECT_FALSE(std::filesystem::exists(job.options.output));
}

TEST(Dequantize, DestinationsThatMayNotBeReplaced) {
  DequantizeJob job;
  job.options.output = job.options.input;
  job.options.run.overwrite = true;
  expect_error(ErrorKind::usage, {"same file"}, [&] { job.run(); });
  job.options.output = job.file.dir / "out.safetensors";
  job.options.run.overwrite = false;
  job.run();
  expect_error(ErrorKind::usage, {"exists already"}, [&] { job.run(); });
  job.options.output = job.file.dir / "other.safetensors";
  job.options.dtype = DType::f64;
  expect_error(ErrorKind::usage, {"`dtype` is F64"}, [&] { job.run(); });
}

TEST(Dequantize, TheDefaultOutputLiesBesideTheInput) {
  DequantizeOptions options;
  options.input = "x/model.v2.safetensors";
  EXPECT_EQ(default_dequantized(options), "x/model.v2_bf16.safetensors");
  options.input = "x/model.ckpt";
  options.dtype = DType::f32;
  EXPECT_EQ(default_dequantized(options), "x/model_f32.safetensors");
  options.input = "x/folder/";
  EXPECT_EQ(default_dequantized(options), "x/folder_f32.safetensors");
}

TEST(DequantizeSource, AQuantizedModelIsRefusedWithTheFlagThatDecodesIt) {
  QuantizedFile file;
  Job job(file.tensors, file.metadata);
  expect_error(ErrorKind::input, {"quantized already", "`dequantize_source`"}, [&] { job.run(); });
}

TEST(DequantizeSource, ValuesThatAreNotFiniteAreAnErrorWhateverBecomesOfTheLayer) {
  for (const char* excluded : {"", "^i"}) {
    QuantizedFile file;
    file.tensors[1].data = at::full({5, 1}, std::numeric_limits<float>::quiet_NaN());
    Job job(file.tensors, file.metadata);
    job.options.dequantize_source = true;
    job.options.layers.exclude = excluded;
    Conversion conversion(host(), job.options);
    conversion.plan();
    expect_error(ErrorKind::numeric, {"'i.weight'", "30 of 30 values are not finite"}, [&] { conversion.run(); });
    EXPECT_FALSE(std::filesystem::exists(job.options.output));
  }
}

TEST(DequantizeSource, ThePlanSaysThatWhatWasLostStaysLost) {
  QuantizedFile file;
  Job job(file.tensors, file.metadata);
  job.options.dequantize_source = true;
  Conversion conversion(host(), job.options);
  const Plan& plan = conversion.plan();
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_EQ(plan.warnings[0], "the source was quantized (float8_e4m3fn, 1 layer; int8_tensorwise, 1 layer): what that lost stays lost");
  EXPECT_EQ(testing::decision_of(plan, "f.weight").action, Action::quantize);
}

TEST(DequantizeSource, OfAPlainModelItChangesNothingAndSaysSo) {
  Job job(std::vector<NamedTensor>{{"a.weight", random_weight(4, 256, at::kHalf, 1)}});
  job.options.dequantize_source = true;
  Conversion conversion(host(), job.options);
  const Plan& plan = conversion.plan();
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_NE(plan.warnings[0].find("`dequantize_source` changes nothing"), std::string::npos);
}

}  // namespace
}  // namespace qmill
