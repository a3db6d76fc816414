// The plan as a whole: what it takes for a layer, what it refuses, and the file that it predicts.
#include "core_support.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <qmill/core/compare.h>
#include <qmill/version.h>
#include <nlohmann/json.hpp>

#include <set>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::decision_of;
using testing::expect_error;
using testing::Job;
using testing::random_weight;
using testing::write_bytes;
using testing::write_sparse_model;

struct SparseJob : Job {
  explicit SparseJob(const std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata = {}) {
    write_sparse_model(options.input, tensors, metadata);
  }
};

const TensorInfo kLayer = {"l.weight", DType::f32, {64, 64}};

TEST(Plan, ALayerIsAFloatingMatrixNamedWeight) {
  SparseJob job({{"a.weight", DType::f32, {64, 64}},
                 {"b.weight", DType::bf16, {64, 64}},
                 {"c.weight", DType::f16, {64, 64}},
                 {"d.weight", DType::f64, {64, 64}},
                 {"e.weight", DType::f8_e4m3, {64, 64}},
                 {"int.weight", DType::i32, {64, 64}},
                 {"flags.weight", DType::boolean, {64, 64}},
                 {"vector.weight", DType::f32, {64}},
                 {"scalar.weight", DType::f32, {}},
                 {"conv.weight", DType::f32, {8, 4, 3, 3}},
                 {"table", DType::f32, {64, 64}},
                 {"l.bias", DType::f32, {64}},
                 {"weight", DType::f32, {64, 64}},
                 {"l.weights", DType::f32, {64, 64}}});
  const Plan plan = job.plan();
  std::string layers;
  for (const Decision& decision : plan.decisions) {
    EXPECT_EQ(decision.is_layer, decision.action == Action::quantize) << decision.source.name;
    if (decision.is_layer)
      layers += decision.source.name.substr(0, 1);
    else
      EXPECT_EQ(decision.rule, "not_a_layer") << decision.source.name;
  }
  EXPECT_EQ(layers, "abcde");
}

TEST(Plan, TheMatricesOfALoraAreLayers) {
  SparseJob job({{"l.lora_A.weight", DType::f32, {16, 64}},
                 {"l.lora_B.default.weight", DType::f32, {64, 16}},
                 {"k.lora_up.weight", DType::f32, {64, 16}},
                 {"k.lora_down", DType::f32, {16, 64}},
                 {"k.alpha", DType::f32, {}},
                 {"k.lora_mid", DType::f32, {4, 4}}});
  EXPECT_EQ(job.plan().count(Action::quantize), 0u) << "ComfyUI loads LoRAs as floats";
  job.options.target_reader = TargetReader::any;
  EXPECT_EQ(job.plan().count(Action::quantize), 4u);
}

TEST(Plan, ALoraMatrixWithoutWeightInItsNameComesBackFromItsFile) {
  Job job({{"k.lora_down", random_weight(16, 64, at::kFloat, 1)}});
  job.options.target_reader = TargetReader::any;
  job.run();
  const auto source = testing::host().open(job.options.output);
  ASSERT_EQ(source->tensors().size(), 3u);
  const std::vector<LayerQuality> compared = compare_models(testing::host(), *source, *testing::host().open(job.options.input), 1);
  ASSERT_EQ(compared.size(), 1u);
  EXPECT_EQ(compared[0].name, "k.lora_down");
}

TEST(Plan, EmptyLayersAreCopied) {
  SparseJob job({{"a.weight", DType::f32, {0, 64}}, {"b.weight", DType::f32, {64, 0}}, kLayer});
  const Plan plan = job.plan();
  for (const char* name : {"a.weight", "b.weight"}) {
    EXPECT_EQ(decision_of(plan, name).action, Action::copy);
    EXPECT_EQ(decision_of(plan, name).rule, "empty");
  }
}

TEST(Plan, WideLayersAreRotatedAndOddOnesAreNot) {
  SparseJob job({{"wide.weight", DType::f32, {64, 1024}},
                 {"odd.weight", DType::f32, {7, 5}},
                 {"one.weight", DType::f32, {1, 1}},
                 {"tall.weight", DType::f32, {1024, 100}}});
  const Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, "wide.weight").label.summary, "int8 row, rotated 256");
  for (const char* name : {"odd.weight", "one.weight", "tall.weight"}) {
    EXPECT_EQ(decision_of(plan, name).label.summary, "int8 row") << name;
    EXPECT_FALSE(decision_of(plan, name).target.layout.note.empty()) << name;
  }
}

TEST(Plan, RotationCanBeWidenedOrTurnedOff) {
  SparseJob job({{"k.weight", DType::f32, {64, 192}}, {"wide.weight", DType::f32, {64, 1024}}});
  job.options.target.storage.rotation.mode = Rotation::Mode::any;
  EXPECT_EQ(decision_of(job.plan(), "k.weight").label.summary, "int8 row, rotated 64");
  job.options.target.storage.rotation.mode = Rotation::Mode::off;
  EXPECT_EQ(decision_of(job.plan(), "wide.weight").label.summary, "int8 row");
  EXPECT_TRUE(decision_of(job.plan(), "wide.weight").target.layout.note.empty());
  job.options.target.storage.rotation = {Rotation::Mode::fixed, 16};
  EXPECT_EQ(decision_of(job.plan(), "wide.weight").label.summary, "int8 row, rotated 16");
}

TEST(Plan, RotationOfWhatCannotBeRotatedIsAnError) {
  SparseJob job({kLayer});
  job.options.target.storage.rotation.mode = Rotation::Mode::any;
  job.options.target.storage.scaling = Scaling::tensor;
  expect_error(ErrorKind::usage, {"'any'", "row scaling"}, [&] { job.plan(); });
}

TEST(Plan, Fp16TakesEveryFloatingTensorOfTwoOrMoreDimensions) {
  SparseJob job({{"l.weight", DType::f32, {64, 64}},
                 {"conv.weight", DType::bf16, {8, 4, 3, 3}},
                 {"table", DType::f32, {64, 64}},
                 {"half.weight", DType::f16, {64, 64}},
                 {"bias", DType::f32, {64}},
                 {"ids", DType::i64, {4, 4}}});
  job.options.target.quantizer = "fp16";
  const Plan plan = job.plan();
  for (const char* name : {"l.weight", "conv.weight", "table"}) {
    EXPECT_EQ(decision_of(plan, name).action, Action::quantize) << name;
    EXPECT_EQ(decision_of(plan, name).outputs.at(0).dtype, DType::f16) << name;
  }
  EXPECT_EQ(decision_of(plan, "half.weight").action, Action::copy);
  EXPECT_EQ(decision_of(plan, "half.weight").reason, "is stored so already");
  EXPECT_EQ(decision_of(plan, "bias").action, Action::copy);
  EXPECT_EQ(decision_of(plan, "ids").action, Action::copy);
  EXPECT_EQ(plan.chosen_quantizer, "fp16");
  EXPECT_FALSE(plan.output.files.front().header.find("_quantization_metadata") != std::string::npos);
}

TEST(Plan, TheFormatFp16IsTheSameAsTheQuantizerFp16) {
  SparseJob job({{"l.weight", DType::f32, {64, 64}}, {"conv.weight", DType::bf16, {8, 4, 3, 3}}});
  job.options.target.format = "fp16";
  const Plan plan = job.plan();
  EXPECT_EQ(plan.count(Action::quantize), 2u);
  EXPECT_EQ(plan.chosen_quantizer, "fp16");
}

TEST(Plan, AQuantizerThatDoesNotWriteTheFormatIsAnError) {
  SparseJob job({kLayer});
  job.options.target.quantizer = "rtn";
  job.options.target.format = "fp16";
  expect_error(ErrorKind::usage, {"'rtn'", "'fp16'"}, [&] { job.plan(); });
}

TEST(Plan, AutoSaysWhatItBecame) {
  SparseJob job({kLayer});
  EXPECT_EQ(job.plan().chosen_quantizer, "rtn");
  job.options.target.quantizer = "simple";
  EXPECT_EQ(job.plan().chosen_quantizer, "rtn");
}

TEST(Plan, KeepDtypeCastsFloatingTensorsThatAreNotQuantized) {
  SparseJob job({kLayer, {"a", DType::f32, {4}}, {"b", DType::bf16, {4}}, {"c", DType::f64, {4}}, {"i", DType::i32, {4}}});
  job.options.written.keep_dtype = DType::bf16;
  const Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, "a").action, Action::cast);
  EXPECT_EQ(decision_of(plan, "a").outputs.at(0).dtype, DType::bf16);
  EXPECT_EQ(decision_of(plan, "b").action, Action::copy);
  EXPECT_EQ(decision_of(plan, "c").action, Action::cast);
  EXPECT_EQ(decision_of(plan, "i").action, Action::copy);
}

TEST(Plan, KeepDtypeMustBeOneThatValuesAreCastTo) {
  SparseJob job({kLayer, {"a", DType::f32, {4}}});
  for (const DType dtype : {DType::i8, DType::f64, DType::f8_e4m3, DType::f4}) {
    job.options.written.keep_dtype = dtype;
    expect_error(ErrorKind::usage, {dtype_name(dtype), "f32, bf16, f16"}, [&] { job.plan(); });
  }
}

TEST(Plan, NothingSelectedIsAnErrorThatCountsWhyAndNoRun) {
  SparseJob job({{"a.weight", DType::f32, {64, 64}}, {"b.weight", DType::f32, {64, 64}}, {"c", DType::f32, {64}}});
  job.options.layers.exclude = "weight";
  expect_error(ErrorKind::input, {"0 layers selected", "3 tensors, 2 layers", "2 kept by exclude"}, [&] { require_selection(job.plan()); });
  expect_error(ErrorKind::input, {"0 layers selected"}, [&] { job.run(); });
  EXPECT_EQ(job.files(), std::vector<std::string>{"in.safetensors"});
  SparseJob none({{"c", DType::f32, {64}}});
  expect_error(ErrorKind::input, {"0 layers selected", "1 tensor, 0 layers"}, [&] { require_selection(none.plan()); });
  SparseJob nothing({});
  expect_error(ErrorKind::input, {"0 layers selected"}, [&] { nothing.run(); });
}

TEST(Plan, AQuantizedSourceIsRefusedWithTheEvidence) {
  const TensorInfo plain = {"l.weight", DType::f32, {64, 64}};
  const std::pair<std::vector<TensorInfo>, std::string> cases[] = {
      {{plain, {"l.comfy_quant", DType::u8, {10}}}, "'l.comfy_quant'"},
      {{plain, {"q.weight", DType::i8, {64, 64}}, {"q.weight_scale", DType::f32, {64, 1}}}, "'q.weight_scale'"},
      {{plain, {"q.weight", DType::i8, {64, 64}}, {"q.scale_weight", DType::f32, {}}}, "'q.scale_weight'"},
      {{plain, {"q.weight", DType::f8_e4m3, {64, 64}}, {"q.scale_weight", DType::f32, {}}}, "'q.scale_weight'"},
      {{plain, {"q.weight", DType::f8_e5m2, {64, 64}}, {"q.weight_scale_inv", DType::f32, {1, 1}}}, "'q.weight_scale_inv'"},
      {{plain, {"q.weight", DType::u8, {64, 32}}, {"q.weight_scale_2", DType::f32, {}}}, "'q.weight_scale_2'"},
      {{plain, {"scaled_fp8", DType::f8_e4m3, {2}}}, "'scaled_fp8'"},
      {{plain, {"model.scaled_fp8", DType::f8_e4m3, {2}}}, "'model.scaled_fp8'"},
  };
  for (const auto& [tensors, evidence] : cases) {
    SparseJob job(tensors);
    expect_error(ErrorKind::input, {"quantized already", evidence}, [&] { job.plan(); });
  }
  SparseJob header({plain}, {{"_quantization_metadata", "{}"}});
  expect_error(ErrorKind::input, {"quantized already", "_quantization_metadata"}, [&] { header.plan(); });
}

TEST(Plan, WhatOnlyLooksQuantizedIsNotRefused) {
  SparseJob job({kLayer,
                 {"i.weight", DType::i8, {64, 64}},
                 {"f.weight", DType::f8_e4m3, {64, 64}},
                 {"g.weight", DType::f32, {64, 64}},
                 {"h.weight_scale", DType::f32, {1}},
                 {"mask.weight", DType::boolean, {4, 4}},
                 {"mask.weight_scale", DType::f32, {1}}});
  EXPECT_NO_THROW(job.plan());
}

TEST(Plan, TheOutputOfOneRunIsNoSourceOfAnother) {
  Job first({{"l.weight", random_weight(32, 32, at::kFloat, 1)}});
  first.run();
  Job second;
  second.options.input = first.options.output;
  expect_error(ErrorKind::input, {"quantized already"}, [&] { second.plan(); });
}

TEST(Plan, TheMetadataOfTheSourceSurvivesAndTheRunsOwnIsAdded) {
  Job job({{"l.weight", random_weight(32, 256, at::kFloat, 1)}},
          {{"format", "pt"}, {"author", "Zoë \"Z\" 模"}, {"qmill.version", "0.0.0"}, {"qmill.seed", "99"}});
  job.options.recorded = {{"--seed", "7"}};
  job.options.seed = 7;
  job.run();
  const std::map<std::string, std::string> metadata = job.output().metadata;
  EXPECT_EQ(metadata.at("format"), "pt");
  EXPECT_EQ(metadata.at("author"), "Zoë \"Z\" 模");
  EXPECT_EQ(metadata.at("qmill.version"), QMILL_VERSION);
  EXPECT_EQ(metadata.at("qmill.source"), "in.safetensors");
  EXPECT_EQ(metadata.at("qmill.seed"), "7");
  EXPECT_EQ(metadata.at("qmill.quantizer"), "rtn");
  EXPECT_EQ(nlohmann::json::parse(metadata.at("qmill.options")), (nlohmann::json{{"--seed", "7"}}));
}

TEST(Plan, TheMarkersAreInTheHeaderAgainUnlessUnwanted) {
  Job job({{"a.weight", random_weight(32, 256, at::kFloat, 1)}, {"b.weight", random_weight(32, 20, at::kFloat, 1)}});
  job.run();
  const testing::ModelFile out = job.output();
  const nlohmann::json header = nlohmann::json::parse(out.metadata.at("_quantization_metadata"));
  EXPECT_EQ(header.at("format_version"), "1.0");
  EXPECT_EQ(header.at("layers").size(), 2u);
  for (const char* base : {"a", "b"}) {
    const at::Tensor& marker = out.tensors.at(std::string(base) + ".comfy_quant");
    const std::string text(static_cast<const char*>(marker.const_data_ptr()), marker.nbytes());
    EXPECT_EQ(header.at("layers").at(base), nlohmann::json::parse(text));
  }
  job.options.written.save_quant_metadata = false;
  job.options.run.overwrite = true;
  job.run();
  EXPECT_FALSE(job.output().metadata.contains("_quantization_metadata"));
}

TEST(Plan, ANegativeSeedIsDrawnAndRecorded) {
  SparseJob job({kLayer});
  job.options.seed = -1;
  std::set<std::int64_t> seeds;
  for (int i = 0; i < 3; ++i) {
    const Plan plan = job.plan();
    EXPECT_GE(plan.seed, 0);
    seeds.insert(plan.seed);
    EXPECT_NE(plan.output.files.front().header.find("\"qmill.seed\":\"" + std::to_string(plan.seed) + "\""), std::string::npos);
  }
  EXPECT_GT(seeds.size(), 1u);
}

TEST(Plan, TheFileHasTheOrderAlignmentAndSizeThatWerePlanned) {
  Job job({{"z.weight", random_weight(32, 256, at::kFloat, 1)},
           {"a.weight", random_weight(7, 5, at::kHalf, 1)},
           {"ids", at::arange(3, at::kLong)},
           {"half", random_weight(3, 1, at::kHalf, 1)},
           {"flag", at::zeros({3}, at::kBool)},
           {"none", at::empty({0, 3})}});
  job.options.target.storage.scaling = Scaling::tensor;
  job.run();
  EXPECT_EQ(job.output().order, (std::vector<std::string>{"ids", "a.weight_scale", "none", "z.weight_scale", "half", "a.comfy_quant",
                                                          "a.weight", "flag", "z.comfy_quant", "z.weight"}));
  EXPECT_EQ(fs::file_size(job.options.output), job.made.output.bytes());
  const std::string bytes = testing::read_bytes(job.options.output);
  EXPECT_EQ(bytes.substr(0, job.made.output.files.front().header.size()), job.made.output.files.front().header);
  EXPECT_EQ(job.made.output.files.front().header.size() % 8, 0u);
  for (const auto& [name, tensor] : job.made.output.tensors)
    EXPECT_EQ(tensor.offset % static_cast<std::uint64_t>(dtype_bits(tensor.info.dtype) / 8), 0u) << name;
}

TEST(Plan, HugeModelsArePlannedWithoutReadingThem) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 300; ++i) tensors.push_back({"blocks." + std::to_string(i) + ".weight", DType::bf16, {16384, 16384}});
  SparseJob job(tensors);
  const Plan plan = job.plan();
  EXPECT_EQ(plan.count(Action::quantize), 300u);
  EXPECT_GT(plan.output.bytes(), 300ull * 16384 * 16384);
  EXPECT_FALSE(plan.read_data);
}

TEST(Plan, TwoOutputsOfOneNameAreAnErrorBeforeTheRun) {
  SparseJob job({kLayer, {"l.weight_scale", DType::f32, {64, 1}}});
  expect_error(ErrorKind::input, {"'l.weight_scale'", "two tensors"}, [&] { job.plan(); });
}

TEST(Plan, TheTemplateNamesEveryLayerAndLoadsBack) {
  const std::vector<std::string> bases = {"blocks.0.attn", "a+b(c)[d]{e}^f$g|h?i*j\\k", "ünï \"quoted\"", "blocks.00attn"};
  std::vector<TensorInfo> tensors = {{"bias", DType::f32, {4}}};
  for (const std::string& base : bases) tensors.push_back({base + ".weight", DType::f32, {64, 64}});
  SparseJob job(tensors);
  const LayerConfig config = parse_layer_config(layer_config_template(*testing::host().open(job.options.input), "int8"));
  ASSERT_EQ(config.patterns.size(), bases.size());
  for (const std::string& base : bases)
    for (const bool whole : {false, true}) ASSERT_NE(most_specific(config, base, whole), nullptr) << base;
  job.options.layers.config = config;
  const Plan plan = job.plan();
  EXPECT_EQ(plan.count(Action::quantize), bases.size());
  EXPECT_TRUE(plan.warnings.empty());
  for (const std::string& base : bases) EXPECT_EQ(decision_of(plan, base + ".weight").rule, "layer_config");
}

TEST(Plan, DefaultOutputNamesSayWhatTheFileIs) {
  const auto name = [](const ConvertOptions& options) { return default_output(testing::host(), options).string(); };
  ConvertOptions options;
  options.input = "models/flux.safetensors";
  EXPECT_EQ(name(options), "models/flux_auto_int8.safetensors");
  options.target.quantizer = "rtn";
  EXPECT_EQ(name(options), "models/flux_rtn_int8.safetensors");
  options.target.storage.scaling = Scaling::block;
  EXPECT_EQ(name(options), "models/flux_rtn_int8_block.safetensors");
  options.target.quantizer = "fp16";
  EXPECT_EQ(name(options), "models/flux_fp16_fp16.safetensors");
  const ConvertOptions initial;
  options = initial;
  options.input = "models/flux/";
  options.layers.exclude = "x";
  EXPECT_EQ(name(options), "models/flux_auto_int8_mixed.safetensors");
  options.layers.exclude = "";
  options.input = "flux.safetensors.index.json";
  options.layers.filters = {"t5xxl"};
  EXPECT_EQ(name(options), "flux_auto_int8_mixed.safetensors");
  options.layers.filters = {};
  options.layers.config = LayerConfig();
  EXPECT_EQ(name(options), "flux_auto_int8_mixed.safetensors");
  options.layers.config.reset();
  EXPECT_EQ(name(options), "flux_auto_int8.safetensors");
  options.layers.embeddings = Embeddings::fp8;
  EXPECT_EQ(name(options), "flux_auto_int8_mixed.safetensors");
}

TEST(Plan, ActionsHaveNames) {
  EXPECT_EQ(action_name(Action::quantize), "quantize");
  EXPECT_EQ(action_name(Action::cast), "cast");
  EXPECT_EQ(action_name(Action::copy), "copy");
  EXPECT_EQ(action_name(Action::remove), "remove");
}

}  // namespace
}  // namespace qmill
