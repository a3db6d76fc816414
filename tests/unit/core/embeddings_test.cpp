// The rule `embeddings`: which tables of tokens it takes, what it makes of them, and what comes before it.
#include "core_support.h"

namespace qmill {
namespace {

using testing::decision_of;
using testing::expect_error;
using testing::Job;
using testing::write_sparse_model;

const std::string kTable = "shared.weight";
const std::string kQ = "encoder.block.0.layer.0.SelfAttention.q.weight";
const std::string kPositions = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
const std::string kHead = "lm_head.weight";  // t5xxl removes it

// T5-XXL, as ComfyUI knows it by the width of its norm.
std::vector<TensorInfo> t5(std::int64_t width = 4096) {
  return {{kTable, DType::bf16, {500, width}},
          {kQ, DType::bf16, {64, width}},
          {kPositions, DType::bf16, {32, 64}},
          {kHead, DType::bf16, {500, width}},
          {"encoder.block.0.layer.0.layer_norm.weight", DType::bf16, {width}},
          {"encoder.block.0.layer.1.DenseReluDense.wo.weight", DType::bf16, {64, width}}};
}

struct TableJob : Job {
  explicit TableJob(const std::vector<TensorInfo>& tensors = t5(), Embeddings embeddings = Embeddings::int8) {
    write_sparse_model(options.input, tensors);
    options.layers.filters = {"auto"};
    options.layers.embeddings = embeddings;
  }

  // "action rule: reason"
  std::string decided(const std::string& name = kTable) {
    const Plan made_plan = plan();
    const Decision& decision = decision_of(made_plan, name);
    return std::string(action_name(decision.action)) + " " + decision.rule + ": " + decision.reason;
  }

  std::string stored() {
    const Plan made_plan = plan();
    const Decision& decision = decision_of(made_plan, kTable);
    return decision.quantizer == nullptr ? "as it is" : decision.label.summary + " by " + decision.quantizer->info().name;
  }

  bool warns_of_no_tensor() {
    const std::vector<std::string> warnings = plan().warnings;
    return std::find(warnings.begin(), warnings.end(), "`embeddings` decided about no tensor") != warnings.end();
  }
};

const std::string kTaken = "quantize embeddings: a table of tokens";

TEST(Embeddings, ATableOfTokensIsQuantizedThoughItsFilterKeepsIt) {
  TableJob job(t5(), Embeddings::off);
  EXPECT_EQ(job.decided(), "copy filter: t5xxl: shared");
  EXPECT_FALSE(job.warns_of_no_tensor());
  job.options.layers.embeddings = Embeddings::int8;
  EXPECT_EQ(job.decided(), kTaken);
  EXPECT_EQ(job.stored(), "int8 row by rtn");
  EXPECT_EQ(job.decided(kPositions), "copy filter: t5xxl: relative_attention_bias");
  EXPECT_EQ(job.decided(kQ), "quantize primary: ");
  EXPECT_FALSE(job.warns_of_no_tensor());
}

TEST(Embeddings, TheExactTensorsArePlanned) {
  const std::string marker = R"({"format":"int8_tensorwise"})";
  TableJob job;
  EXPECT_EQ(decision_of(job.plan(), kTable).outputs,
            (std::vector<TensorInfo>{{kTable, DType::i8, {500, 4096}},
                                     {"shared.weight_scale", DType::f32, {500, 1}},
                                     {"shared.comfy_quant", DType::u8, {static_cast<std::int64_t>(marker.size())}}}));
  EXPECT_EQ(decision_of(job.plan(), kTable).label.marker, marker);
  job.options.layers.embeddings = Embeddings::fp8;
  const Plan plan = job.plan();
  ASSERT_EQ(decision_of(plan, kTable).outputs.size(), 3u);
  EXPECT_EQ(decision_of(plan, kTable).outputs[0], (TensorInfo{kTable, DType::f8_e4m3, {500, 4096}}));
  EXPECT_EQ(decision_of(plan, kTable).outputs[1], (TensorInfo{"shared.weight_scale", DType::f32, {}}));
  EXPECT_EQ(decision_of(plan, kTable).label.marker, R"({"format":"float8_e4m3fn"})");
}

TEST(Embeddings, WhatTheRunAsksOfLayersSaysNothingOfTables) {
  for (const auto& [embeddings, stored] :
       {std::pair{Embeddings::int8, "int8 row by rtn"}, std::pair{Embeddings::fp8, "float8_e4m3fn tensor by rtn"}}) {
    TableJob job(t5(), embeddings);
    const ConvertOptions plain = job.options;
    const auto expect_stored = [&, stored = stored](const char* what) {
      EXPECT_EQ(job.stored(), stored) << what;
      job.options = plain;
    };
    job.options.target.storage.scaling = Scaling::tensor;
    expect_stored("one scale");
    job.options.target.storage.scaling = Scaling::block;
    job.options.target.storage.block_size = 4;
    expect_stored("blocks");
    job.options.target.storage.rotation = {Rotation::Mode::fixed, 64};
    expect_stored("rotated");
    job.options.target.format = "int4";
    expect_stored("int4");
    job.options.target.format = "fp16";
    expect_stored("a cast");
    job.options.target.quantizer = "quip";
    expect_stored("another quantizer");
    job.options.layers.skip_inefficient = true;
    expect_stored("heuristics");
    job.options.layers.fallback.type = "fp16";
    expect_stored("a fallback");
    job.options.layers.filters = {};
    expect_stored("no filter");
  }
}

TEST(Embeddings, ChoicesOfAPersonComeFirst) {
  TableJob job;
  const ConvertOptions plain = job.options;
  job.options.layers.exclude = "shared";
  EXPECT_EQ(job.decided(), "copy exclude: shared");
  EXPECT_TRUE(job.warns_of_no_tensor());
  job.options = plain;
  job.options.layers.custom = {"shared", "fp16", {}, {}, false, false};
  EXPECT_EQ(job.decided(), "quantize custom: shared");
  job.options = plain;
  job.options.layers.config = parse_layer_config(R"({"shared": {"skip": true}})");
  EXPECT_EQ(job.decided(), "copy layer_config: shared");
  job.options = plain;
  job.options.layers.config = parse_layer_config(R"({"SelfAttention": {"skip": true}})");
  EXPECT_EQ(job.decided(), kTaken);
}

TEST(Embeddings, WhatAFilterRemovesStaysRemoved) {
  std::vector<TensorInfo> tensors = t5();
  tensors.push_back({"decoder.embed_tokens.weight", DType::bf16, {500, 4096}});
  TableJob job(tensors);
  EXPECT_EQ(job.decided("decoder.embed_tokens.weight"), "remove remove: filter t5xxl: decoder.embed_tokens");
  EXPECT_EQ(job.decided(), kTaken);
}

TEST(Embeddings, TablesThatTheReaderTakesAsFloatsAreLeftAndCounted) {
  TableJob job(t5(256));  // no T5 that ComfyUI knows
  EXPECT_EQ(job.decided(), "copy filter: t5xxl: shared");
  EXPECT_TRUE(job.warns_of_no_tensor());
  EXPECT_EQ(job.plan().remarks,
            std::vector<std::string>{"`embeddings` leaves 2 tables to the other rules: 1 in the T5 text encoder, as ComfyUI has no T5 text "
                                     "encoder of width 256 (`target any` does not ask that); 1 of positions or kinds"});
  job.options.target_reader = TargetReader::any;
  EXPECT_EQ(job.decided(), kTaken);
  EXPECT_FALSE(job.warns_of_no_tensor());
  EXPECT_EQ(job.plan().remarks, std::vector<std::string>{"`embeddings` leaves 1 table to the other rules: 1 of positions or kinds"});
}

TEST(Embeddings, OnlyFloatingMatricesAreTables) {
  for (const TensorInfo& table : {TensorInfo{kTable, DType::i8, {500, 4096}}, TensorInfo{kTable, DType::bf16, {4096}},
                                  TensorInfo{kTable, DType::bf16, {2, 500, 4096}}, TensorInfo{kTable, DType::bf16, {0, 4096}}}) {
    std::vector<TensorInfo> tensors = t5();
    tensors.front() = table;
    TableJob job(tensors);
    const Plan plan = job.plan();
    EXPECT_EQ(decision_of(plan, kTable).outputs, std::vector<TensorInfo>{table}) << table.shape_text();
  }
}

TEST(Embeddings, AModelWithoutTablesIsAWarning) {
  std::vector<TensorInfo> tensors = t5();
  tensors.erase(tensors.begin());
  TableJob job(tensors);
  EXPECT_TRUE(job.warns_of_no_tensor());
}

TEST(Embeddings, TheHintAboutTheModelsFilterDoesNotCountThem) {
  TableJob job(t5(), Embeddings::off);
  job.options.layers.filters = {};
  const auto is_hint = [](const std::string& warning) { return warning.find("would keep") != std::string::npos; };
  const auto hint = [&] {
    const std::vector<std::string> warnings = job.plan().warnings;
    const auto found = std::find_if(warnings.begin(), warnings.end(), is_hint);
    return found == warnings.end() ? std::string() : *found;
  };
  EXPECT_NE(hint().find("would keep 3 layers"), std::string::npos) << hint();
  job.options.layers.embeddings = Embeddings::int8;
  EXPECT_NE(hint().find("would keep 2 layers"), std::string::npos) << hint();
}

TEST(Embeddings, Float8WithLegacyNamesIsAnErrorThatNamesTheRule) {
  TableJob job(t5(), Embeddings::fp8);
  job.options.target.storage.naming = Naming::legacy;
  expect_error(ErrorKind::usage, {kTable, "rule embeddings", "ComfyUI names only"}, [&] { job.plan(); });
}

}  // namespace
}  // namespace qmill
