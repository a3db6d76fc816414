// Which rule decides about a tensor, and what becomes of it. Files are holes: no rule but the heuristics reads data.
#include "core_support.h"

#include <ATen/ops/full.h>

namespace qmill {
namespace {

using testing::decision_of;
using testing::expect_error;
using testing::Job;
using testing::random_weight;
using testing::write_sparse_model;

const std::string kDecoder = "decoder.block.0.layer.0.SelfAttention.q.weight";  // t5xxl removes it
const std::string kNorm = "encoder.block.0.norm_out.weight";                    // t5xxl keeps it
const std::string kQ = "encoder.block.0.layer.0.SelfAttention.q.weight";

struct RulesJob : Job {
  explicit RulesJob(std::vector<TensorInfo> tensors = {
                        {kDecoder, DType::f32, {64, 64}}, {kNorm, DType::f32, {64, 64}}, {kQ, DType::f32, {64, 64}}}) {
    write_sparse_model(options.input, tensors);
  }

  void use_config(const char* json) { options.layers.config = parse_layer_config(json); }

  // "action rule: reason" of one tensor.
  std::string decided(const std::string& name) {
    const Plan made_plan = plan();
    const Decision& decision = decision_of(made_plan, name);
    return std::string(action_name(decision.action)) + " " + decision.rule + ": " + decision.reason;
  }

  std::string label(const std::string& name) {
    const Plan made_plan = plan();
    return decision_of(made_plan, name).label.summary;
  }

  std::string quantizer(const std::string& name) {
    const Plan made_plan = plan();
    const Decision& decision = decision_of(made_plan, name);
    return decision.quantizer == nullptr ? "none" : decision.quantizer->info().name;
  }
};

TEST(Rules, WithoutAnyRuleTheRunsOwnQuantizerTakesTheLayer) {
  RulesJob job;
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
  EXPECT_EQ(job.quantizer(kQ), "rtn");
  EXPECT_EQ(job.label(kQ), "int8 row");
}

TEST(Rules, RemoveBeatsLayerConfig) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.use_config(R"({"decoder": {"format": "int8"}, "_default": {}})");
  EXPECT_EQ(job.decided(kDecoder), "remove remove: filter t5xxl: decoder.block.*.layer");
  EXPECT_FALSE(job.plan().output.tensors.contains(kDecoder));
}

TEST(Rules, RemoveBeatsCustomAndExclude) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.custom = {"decoder", "int8", {}, {}, false, false};
  job.options.layers.exclude = "decoder";
  EXPECT_EQ(job.decided(kDecoder), "remove remove: filter t5xxl: decoder.block.*.layer");
}

TEST(Rules, LayerConfigBeatsCustomExcludeAndFilter) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.custom = {"norm_out", "fp16", {}, {}, false, false};
  job.options.layers.exclude = "norm_out";
  job.use_config(R"({"norm_out": {"format": "int8"}})");
  EXPECT_EQ(job.decided(kNorm), "quantize layer_config: norm_out");
  EXPECT_EQ(job.label(kNorm), "int8 row");
}

TEST(Rules, LayerConfigMaySkip) {
  RulesJob job;
  job.options.layers.custom = {"SelfAttention", "fp16", {}, {}, false, false};
  job.use_config(R"({"encoder.*q": {"skip": true}})");
  EXPECT_EQ(job.decided(kQ), "copy layer_config: encoder.*q");
}

TEST(Rules, ExclusionsOfTheLayerConfigWinOverItsPatterns) {
  RulesJob job;
  job.use_config(R"({"encoder\\.block\\.0\\.layer\\.0\\.SelfAttention\\.q": {"format": "fp16"}, "_exclusions": ["Self"]})");
  EXPECT_EQ(job.decided(kQ), "copy layer_config: Self");
}

TEST(Rules, TheDefaultOfTheLayerConfigTakesWhatNoPatternMatches) {
  RulesJob job;
  job.use_config(R"({"norm_out": {"format": "int8"}, "_default": {"format": "fp16"}})");
  EXPECT_EQ(job.decided(kQ), "quantize layer_config: _default");
  EXPECT_EQ(job.label(kQ), "fp16");
  EXPECT_EQ(job.label(kNorm), "int8 row");
}

TEST(Rules, WithoutADefaultTheOtherRulesTakeWhatNoPatternMatches) {
  RulesJob job;
  job.use_config(R"({"norm_out": {"format": "fp16"}})");
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
}

TEST(Rules, LayerConfigMatchesTheNameWithoutWeight) {
  RulesJob job;
  job.use_config(R"({"SelfAttention\\.q$": {"skip": true}})");
  EXPECT_EQ(job.decided(kQ), "copy layer_config: SelfAttention\\.q$");
  job.options.layers.config_fullmatch = true;
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
  job.use_config(R"({".*SelfAttention\\.q": {"skip": true}})");
  EXPECT_EQ(job.decided(kQ), "copy layer_config: .*SelfAttention\\.q");
}

TEST(Rules, CustomBeatsExcludeAndFilter) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.custom = {"norm_out\\.weight$", "int8", {}, {}, false, false};
  job.options.layers.exclude = "norm_out";
  EXPECT_EQ(job.decided(kNorm), "quantize custom: norm_out\\.weight$");
}

TEST(Rules, ExcludeBeatsFilter) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.exclude = "norm_\\w+\\.weight";
  EXPECT_EQ(job.decided(kNorm), "copy exclude: norm_\\w+\\.weight");
}

TEST(Rules, AFilterKeepsWithItsPatternAsTheReason) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  EXPECT_EQ(job.decided(kNorm), "copy filter: t5xxl: *norm*.weight");
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
}

TEST(Rules, OfSeveralFiltersAnyMayKeepAndAnyMayRemove) {
  RulesJob job(
      {{"visual.blocks.0.mlp.up_proj.weight", DType::f32, {64, 64}}, {kDecoder, DType::f32, {64, 64}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.filters = {"visual", "t5xxl"};
  EXPECT_EQ(job.decided("visual.blocks.0.mlp.up_proj.weight"), "copy filter: visual: visual.blocks.*.mlp.up_proj");
  EXPECT_EQ(job.decided(kDecoder), "remove remove: filter t5xxl: decoder.block.*.layer");
}

TEST(Rules, FallbackTakesWhatExcludeOrAFilterKeeps) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.fallback.type = "fp16";
  EXPECT_EQ(job.decided(kNorm), "quantize fallback: filter t5xxl: *norm*.weight");
  EXPECT_EQ(job.label(kNorm), "fp16");
  EXPECT_EQ(job.label(kQ), "int8 row");
  job.options.layers.exclude = "norm_out";
  EXPECT_EQ(job.decided(kNorm), "quantize fallback: exclude norm_out");
}

TEST(Rules, FallbackDoesNotTouchWhatALayerConfigSkips) {
  RulesJob job;
  job.options.layers.fallback.type = "fp16";
  job.use_config(R"({"norm_out": {"skip": true}})");
  EXPECT_EQ(job.decided(kNorm), "copy layer_config: norm_out");
}

TEST(Rules, FallbackMayBeAFormatOrAQuantizerWithABlockSize) {
  RulesJob job;
  job.options.layers.exclude = "norm_out";
  job.options.layers.fallback = {"int8", 32, false};
  EXPECT_EQ(job.label(kNorm), "int8 block 32");
  job.options.layers.fallback = {"rtn", {}, true};
  EXPECT_EQ(job.label(kNorm), "int8 row");
  EXPECT_EQ(job.quantizer(kNorm), "rtn");
}

TEST(Rules, ExcludeBeatsTheHeuristic) {
  RulesJob job({{"thin.weight", DType::f32, {4, 64}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.skip_inefficient = true;
  job.options.layers.exclude = "thin";
  EXPECT_EQ(job.decided("thin.weight"), "copy exclude: thin");
}

TEST(Rules, TheHeuristicBeatsThePrimaryQuantizer) {
  RulesJob job({{"thin.weight", DType::f32, {4, 64}}, {kQ, DType::f32, {64, 64}}});
  EXPECT_EQ(job.decided("thin.weight"), "quantize primary: ");
  job.options.layers.skip_inefficient = true;
  EXPECT_EQ(job.decided("thin.weight"), "copy heuristic: a side of 4 is below 16");
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
}

TEST(Rules, TheHeuristicLeavesCustomLayersUnlessTheyAskForIt) {
  RulesJob job({{"thin.weight", DType::f32, {64, 15}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.skip_inefficient = true;
  job.options.layers.custom = {"thin", "int8", {}, {}, false, false};
  EXPECT_EQ(job.decided("thin.weight"), "quantize custom: thin");
  job.options.layers.custom.heuristic = true;
  EXPECT_EQ(job.decided("thin.weight"), "copy heuristic: a side of 15 is below 16");
  job.options.layers.skip_inefficient = false;
  EXPECT_EQ(job.decided("thin.weight"), "copy heuristic: a side of 15 is below 16");
}

TEST(Rules, TheHeuristicSkipsWhatBlocksDoNotDivide) {
  RulesJob job({{"odd.weight", DType::f32, {64, 100}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.skip_inefficient = true;
  job.options.target.storage.scaling = Scaling::block;
  job.options.target.storage.block_size = 64;
  EXPECT_EQ(job.decided("odd.weight"), "copy heuristic: blocks of 64 do not divide its shape: per row");
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
}

TEST(Rules, TheHeuristicSkipsWhatTheBlocksOfCustomLayersDoNotDivide) {
  RulesJob job({{"odd.weight", DType::f32, {64, 100}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.custom = {"odd", "int8", 64, {}, false, true};
  EXPECT_EQ(job.decided("odd.weight"), "copy heuristic: blocks of 64 do not divide its shape: per row");
}

TEST(Rules, TheHeuristicMeasuresWhatPlainRoundingMakesOfTheData) {
  // One large value per row makes the step 1: all others round to zero.
  at::Tensor bad = at::full({64, 96}, 0.49f);
  bad.select(1, 0).fill_(127.0f);
  Job job({{"bad.weight", bad}, {"good.weight", random_weight(64, 96, at::kFloat, 2)}});
  job.options.layers.skip_inefficient = true;
  job.options.quality_threshold = 45;
  Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, "good.weight").action, Action::quantize);
  EXPECT_TRUE(plan.read_data);
  // 127^2 against 95 x 0.49^2 is 28.5 dB: below 45 - 10.
  EXPECT_EQ(decision_of(plan, "bad.weight").rule, "heuristic");
  EXPECT_EQ(decision_of(plan, "bad.weight").reason, "plain rounding gives 28.5 dB, below 35.0");
  job.options.quality_threshold = 38;
  plan = job.plan();
  EXPECT_EQ(decision_of(plan, "bad.weight").rule, "primary");
}

TEST(Rules, WithoutHeuristicsNoDataIsRead) {
  RulesJob job;
  EXPECT_FALSE(job.plan().read_data);
}

TEST(Rules, CustomLayersNeedAType) {
  RulesJob job;
  job.options.layers.custom.pattern = "q";
  expect_error(ErrorKind::usage, {"`custom_layers`", "`custom_type`"}, [&] { job.plan(); });
}

TEST(Rules, ACustomTypeNeedsAPattern) {
  RulesJob job;
  job.options.layers.custom.type = "int8";
  expect_error(ErrorKind::usage, {"`custom_type`", "`custom_layers REGEX`"}, [&] { job.plan(); });
}

TEST(Rules, CustomTypesAreFormatsAndQuantizersByNameOrAlias) {
  RulesJob job;
  for (const auto& [type, label] : std::map<std::string, std::string>{{"int8", "int8 row"},
                                                                      {"fp16", "fp16"},
                                                                      {"float16", "fp16"},
                                                                      {"rtn", "int8 row"},
                                                                      {"simple", "int8 row"},
                                                                      {"int8_blockwise", "int8 row"},
                                                                      {"int8-axiswise", "int8 axis"},
                                                                      {"int8_tensorwise", "int8 row"}}) {
    job.options.layers.custom = {"Self", type, {}, {}, false, false};
    EXPECT_EQ(job.label(kQ), label) << type;  // blocks of 128 do not divide 64
  }
}

TEST(Rules, CustomBlockSizeAndScalingAreUsed) {
  RulesJob job;
  job.options.layers.custom = {"encoder.*q", "int8", 16, {}, false, false};
  EXPECT_EQ(job.label(kQ), "int8 block 16");
  job.options.layers.custom = {"encoder.*q", "int8", {}, Scaling::tensor, false, false};
  EXPECT_EQ(job.label(kQ), "int8 tensor");
  job.options.layers.custom = {"encoder.*q", "int8", 16, Scaling::row, false, false};
  expect_error(ErrorKind::usage, {kQ, "custom", "encoder.*q", "block size of 16"}, [&] { job.plan(); });
  job.options.layers.custom = {"encoder.*q", "fp16", 16, {}, false, false};
  expect_error(ErrorKind::usage, {kQ, "'fp16' has no scales"}, [&] { job.plan(); });
}

TEST(Rules, ABlockSizeOfZeroIsAnErrorAndNotACrash) {
  RulesJob job;
  for (const std::int64_t size : {0, -1}) {
    job.options.layers.custom = {"encoder.*q", "int8", size, {}, false, false};
    expect_error(ErrorKind::usage, {"block size"}, [&] { job.plan(); });
    job.options.layers.custom = {};
    job.options.target.storage.scaling = Scaling::block;
    job.options.target.storage.block_size = size;
    expect_error(ErrorKind::usage, {"block size"}, [&] { job.plan(); });
    job.options.target.storage = {};
  }
}

TEST(Rules, ARotationThatIsNoPowerOfFourIsAnError) {
  RulesJob job;
  for (const std::int64_t group : {0, 3, 8, -4}) {
    job.options.target.storage.rotation = {Rotation::Mode::fixed, group};
    expect_error(ErrorKind::usage, {"power of 4"}, [&] { job.plan(); });
  }
}

TEST(Rules, UnknownNamesComeWithTheNearestKnownOne) {
  RulesJob job;
  const ConvertOptions plain = job.options;
  const auto refused = [&](std::initializer_list<std::string_view> parts, ErrorKind kind = ErrorKind::usage) {
    expect_error(kind, parts, [&] { job.plan(); });
    job.options = plain;
  };
  job.options.target.quantizer = "rtm";
  refused({"no quantizer 'rtm'", "did you mean 'rtn'"});
  job.options.target.format = "imt8";
  refused({"no format 'imt8'", "did you mean 'int8'"});
  job.options.layers.filters = {"t5xl"};
  refused({"no filter 't5xl'", "did you mean 't5xxl'"});
  job.options.layers.custom = {"q", "fp61", {}, {}, false, false};
  refused({"`custom_type`", "no format or quantizer 'fp61'", "did you mean 'fp16'"});
  job.options.layers.fallback.type = "in8";
  refused({"`fallback`", "no format or quantizer 'in8'", "did you mean 'int8'"});
  job.use_config(R"({"encoder": {"format": "int88"}})");
  refused({"entry 'encoder'", "no format 'int88'", "did you mean 'int8'"}, ErrorKind::input);
  job.use_config(R"({"encoder": {"optimizer": "rnt"}})");
  refused({"entry 'encoder'", "no quantizer 'rnt'", "did you mean 'rtn'", "(known: ", "rtn"}, ErrorKind::input);
}

TEST(Rules, BadPatternsAreErrorsThatNameThem) {
  RulesJob job;
  job.options.layers.exclude = "layers.[0";
  expect_error(ErrorKind::usage, {"layers.[0", "not a regular expression"}, [&] { job.plan(); });
  job.options.layers.exclude = "";
  job.options.layers.custom = {"(q", "int8", {}, {}, false, false};
  expect_error(ErrorKind::usage, {"(q", "not a regular expression"}, [&] { job.plan(); });
}

TEST(Rules, WhatMatchedNothingIsAWarningWithItsText) {
  RulesJob job({{kDecoder, DType::f32, {64, 64}}, {kQ, DType::f32, {64, 64}}});
  job.options.layers.filters = {"t5xxl", "visual"};
  job.options.layers.custom = {"no_such_custom", "int8", {}, {}, false, false};
  job.options.layers.exclude = "no_such_exclude";
  job.use_config(R"({"no_such_entry": {"skip": true}, "encoder": {"simple": true}, "_exclusions": ["no_such_exclusion"]})");
  const std::vector<std::string> warnings = job.plan().warnings;
  EXPECT_EQ(warnings,
            (std::vector<std::string>{
                "`custom_layers` 'no_such_custom' decided about no tensor", "`exclude_layers` 'no_such_exclude' decided about no tensor",
                "filter 'visual' decided about no tensor", "layer config pattern 'no_such_entry' decided about no tensor",
                "layer config pattern 'no_such_exclusion' decided about no tensor"}));
}

TEST(Rules, WhatMatchedSomethingIsNoWarning) {
  RulesJob job;
  job.options.layers.filters = {"t5xxl"};
  job.options.layers.exclude = "norm";
  EXPECT_TRUE(job.plan().warnings.empty());
}

TEST(Rules, AnUnknownNameInALayerConfigEntryThatMatchesNothingIsAnErrorToo) {
  RulesJob job;
  job.use_config(R"({"no_such_layer": {"format": "int88"}})");
  expect_error(ErrorKind::input, {"no_such_layer", "int88"}, [&] { job.plan(); });
  job.use_config(R"({"no_such_layer": {"optimizer": "rnt"}})");
  expect_error(ErrorKind::input, {"no_such_layer", "rnt"}, [&] { job.plan(); });
}

TEST(Rules, TheFormatsOfALayerConfigMeanTheirScaling) {
  RulesJob job({{kQ, DType::f32, {256, 256}}});
  const std::pair<const char*, const char*> cases[] = {
      {R"({"q$": {"format": "int8"}})", "int8 row, rotated 256"},
      {R"({"q$": {"format": "fp16"}})", "fp16"},
      {R"({"q$": {"format": "int8_tensorwise"}})", "int8 row, rotated 256"},
      {R"({"q$": {"format": "int8_blockwise"}})", "int8 block 128"},
      {R"({"q$": {"format": "int8_axiswise"}})", "int8 axis"},
      {R"({"q$": {"format": "int8", "block_size": 64}})", "int8 block 64"},
      {R"({"q$": {"block_size": 64}})", "int8 block 64"},
      {R"({"q$": {"block_size": 64, "scaling_mode": "block"}})", "int8 block 64"},
      {R"({"q$": {"format": "int8_blockwise", "block_size": 32}})", "int8 block 32"},
      {R"({"q$": {"scaling_mode": "tensor"}})", "int8 tensor"},
      {R"({"q$": {"scaling_mode": "axis"}})", "int8 axis"},
      {R"({"q$": {"format": "int8_tensorwise", "scaling_mode": "tensor"}})", "int8 tensor"},
      {R"({"q$": {"block_size": 100}})", "int8 row"},
      {R"({"q$": {"simple": true}})", "int8 row, rotated 256"},
      {R"({"q$": {"optimizer": "fp16"}})", "fp16"},
      {R"({"q$": {"quantizer": "float16"}})", "fp16"},
  };
  for (const auto& [json, label] : cases) {
    job.use_config(json);
    EXPECT_EQ(job.label(kQ), label) << json;
  }
}

TEST(Rules, ContradictionsInALayerConfigAreErrorsThatNameTheEntry) {
  RulesJob job;
  for (const char* json :
       {R"({"SelfA": {"format": "int8_blockwise", "scaling_mode": "row"}})",
        R"({"SelfA": {"format": "int8_axiswise", "scaling_mode": "tensor"}})", R"({"SelfA": {"block_size": 64, "scaling_mode": "row"}})",
        R"({"SelfA": {"format": "fp16", "block_size": 64}})", R"({"SelfA": {"format": "fp16", "scaling_mode": "row"}})",
        R"({"SelfA": {"format": "int8_axiswise", "block_size": 64}})", R"({"SelfA": {"format": "int8_tensorwise", "block_size": 64}})",
        R"({"SelfA": {"format": "int8", "optimizer": "fp16"}})", R"({"SelfA": {"format": "fp16", "optimizer": "rtn"}})"}) {
    job.use_config(json);
    expect_error(ErrorKind::input, {"entry 'SelfA'"}, [&] { job.plan(); });
  }
}

TEST(Rules, AWrongEntryIsNamedWithItsFile) {
  RulesJob job;
  testing::write_bytes(job.dir / "layers.json", R"({"SelfA": {"format": "fp16", "block_size": 64}})");
  job.options.layers.config = load_layer_config(job.dir / "layers.json");
  expect_error(ErrorKind::input, {"layers.json", "entry 'SelfA'", "'fp16' has no scales"}, [&] { job.plan(); });
}

TEST(Rules, TensorwiseWithBlockScalingIsAContradiction) {
  RulesJob job;
  for (const char* scaling : {"block", "axis"}) {
    job.use_config((std::string(R"({"SelfA": {"format": "int8_tensorwise", "scaling_mode": ")") + scaling + R"("}})").c_str());
    expect_error(ErrorKind::input, {"entry 'SelfA'", "int8_tensorwise", scaling}, [&] { job.plan(); });
  }
}

TEST(Rules, OptionsOfALayerAreCheckedAgainstItsQuantizer) {
  RulesJob job;
  job.use_config(R"({"SelfA": {"format": "fp16", "options": {"overflow": "clamp"}}})");
  EXPECT_EQ(decision_of(job.plan(), kQ).target.options.text("overflow"), "clamp");
  job.use_config(R"({"SelfA": {"format": "fp16", "options": {"overflow": "wrap"}}})");
  expect_error(ErrorKind::input, {"entry 'SelfA'", "fp16 option 'overflow'", "'wrap'", "error, clamp"}, [&] { job.plan(); });
  job.use_config(R"({"SelfA": {"format": "fp16", "options": {"overflow": true}}})");
  expect_error(ErrorKind::input, {"fp16 option 'overflow'"}, [&] { job.plan(); });
  job.use_config(R"({"SelfA": {"format": "fp16", "options": {"overflw": "clamp"}}})");
  expect_error(ErrorKind::input, {"no fp16 option 'overflw'", "did you mean 'overflow'"}, [&] { job.plan(); });
  job.use_config(R"({"SelfA": {"options": {"overflow": "clamp"}}})");
  expect_error(ErrorKind::input, {"no rtn option 'overflow'"}, [&] { job.plan(); });
}

TEST(Rules, OptionsOfTheRunGoToEveryLayerOfTheirQuantizerUnlessTheLayerSaysElse) {
  RulesJob job;
  job.options.target.quantizer = "fp16";
  job.options.target.quantizer_options["fp16"]["overflow"] = std::string("clamp");
  job.use_config(R"({"SelfA": {"format": "fp16", "options": {"overflow": "error"}}})");
  const Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, kNorm).target.options.text("overflow"), "clamp");
  EXPECT_EQ(decision_of(plan, kQ).target.options.text("overflow"), "error");
}

TEST(Rules, FullPrecisionMatrixMultOfALayerIsInItsMarkerAlone) {
  RulesJob job;
  job.use_config(R"({"SelfAttention.q": {"full_precision_matrix_mult": true}})");
  const Plan plan = job.plan();
  EXPECT_NE(decision_of(plan, kQ).label.marker.find(R"("full_precision_matrix_mult":true)"), std::string::npos);
  EXPECT_EQ(decision_of(plan, kNorm).label.marker.find("full_precision"), std::string::npos);
}

}  // namespace
}  // namespace qmill
