// Where a layer goes when the format that was asked for cannot or must not store it.
#include "core_support.h"

#include <qmill/core/compare.h>
#include <qmill/core/conversion.h>
#include <qmill/error.h>

namespace qmill {
namespace {

using testing::decision_of;
using testing::expect_error;
using testing::host;
using testing::Job;
using testing::random_weight;
using testing::write_sparse_model;

struct Int4Job : Job {
  explicit Int4Job(const std::vector<TensorInfo>& tensors) {
    write_sparse_model(options.input, tensors);
    options.target.format = "int4";
  }
};

TEST(Target, LayersByWhoseWidthReadersDetectTheModelAreInt8WithThatNote) {
  const std::vector<std::string> names = {"transformer_blocks.0.attn2.to_k.weight", "model.diffusion_model.img_in.weight",
                                          "net.x_embedder.proj.1.weight", "first.weight"};
  std::vector<TensorInfo> tensors = {{"transformer_blocks.1.attn2.to_k.weight", DType::bf16, {64, 256}}};
  for (const std::string& name : names) tensors.push_back({name, DType::bf16, {64, 256}});
  Int4Job job(tensors);
  const Plan plan = job.plan();
  for (const std::string& name : names) {
    const Decision& decision = decision_of(plan, name);
    EXPECT_EQ(decision.label.summary, "int8 row, rotated 256") << name;
    EXPECT_EQ(decision.outputs.front().shape, (std::vector<std::int64_t>{64, 256})) << name;
    EXPECT_TRUE(decision.target.layout.note.starts_with("readers detect the model by its 256 columns")) << decision.target.layout.note;
    EXPECT_EQ(decision.quantizer->info().name, "rtn");
  }
  const Decision& other = decision_of(plan, "transformer_blocks.1.attn2.to_k.weight");
  EXPECT_EQ(other.label.summary, "int4 row, rotated 256");
  EXPECT_EQ(other.outputs.front().shape, (std::vector<std::int64_t>{64, 128}));
  EXPECT_EQ(other.target.layout.note, "");
}

TEST(Target, ASubstituteKeepsItsOwnNoteBehindTheReason) {
  Int4Job job({{"a.weight", DType::bf16, {64, 300}}});
  EXPECT_EQ(decision_of(job.plan(), "a.weight").target.layout.note,
            "64 does not divide its 300 columns: int8; 256 does not divide its 300 columns: not rotated");
  job.options.target.storage.rotation.mode = Rotation::Mode::off;
  EXPECT_EQ(decision_of(job.plan(), "a.weight").label.summary, "int4 row");
}

TEST(Target, ASubstituteIsStoredWithTheSameWishes) {
  Int4Job job({{"img_in.weight", DType::bf16, {64, 192}}});
  job.options.target.storage.rotation.mode = Rotation::Mode::any;
  job.options.target.storage.full_precision_matrix_mult = true;
  const Plan plan = job.plan();
  const Decision& decision = decision_of(plan, "img_in.weight");
  EXPECT_EQ(decision.label.summary, "int8 row, rotated 64");
  EXPECT_NE(decision.label.marker.find(R"("full_precision_matrix_mult":true)"), std::string::npos) << decision.label.marker;
}

TEST(Target, OneLayerMayBeInt4InAnInt8Run) {
  Int4Job job({{"a.weight", DType::bf16, {64, 256}}, {"b.weight", DType::bf16, {64, 256}}});
  job.options.target.format = "int8";
  job.options.layers.config = parse_layer_config(R"({"^a$": {"format": "convrot_w4a4"}})");
  const Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, "a.weight").label.name, "convrot_w4a4");
  EXPECT_EQ(decision_of(plan, "b.weight").label.name, "int8_tensorwise");
}

TEST(Target, ScalingsThatInt4LacksAreAnErrorOfTheRun) {
  Int4Job job({{"a.weight", DType::bf16, {64, 256}}});
  job.options.target.storage.scaling = Scaling::tensor;
  expect_error(ErrorKind::usage, {"'a.weight'", "one scale per row", "tensor scaling"}, [&] { job.plan(); });
}

TEST(Target, PackedLayersComeBackFromTheirFileInTheirShape) {
  for (const Rotation::Mode mode : {Rotation::Mode::automatic, Rotation::Mode::off}) {
    Job job({{"a.weight", random_weight(48, 512, at::kFloat, 1)},
             {"b.weight", random_weight(7, 192, at::kBFloat16, 2)},
             {"img_in.weight", random_weight(33, 64, at::kHalf, 3)},
             {"odd.weight", random_weight(5, 9, at::kFloat, 4)}});
    job.options.target.format = "int4";
    job.options.target.storage.rotation.mode = mode;
    const ConvertReport report = job.run();
    const std::vector<LayerQuality> compared = compare_models(host(), *host().open(job.options.output), *host().open(job.options.input), 2);
    ASSERT_EQ(compared.size(), report.layers.size());
    for (const LayerReport& layer : report.layers) {
      const LayerQuality& found = testing::quality_of(compared, layer.quality.name);
      EXPECT_EQ(found.format, layer.quality.format);
      EXPECT_EQ(found.mse, layer.quality.mse) << layer.quality.name;
      const double db = found.sqnr_db.value_or(0);
      EXPECT_TRUE(found.format == "int8_tensorwise" ? db > 35 : db > 12 && db < 35) << layer.quality.name << ' ' << db;
    }
  }
}

TEST(Target, APackedLayerOfAnotherSourceIsAnErrorThatSaysItsUnpackedShape) {
  Job job({{"a.weight", random_weight(48, 512, at::kFloat, 1)}});
  job.options.target.format = "int4";
  job.run();
  testing::write_model(job.dir / "other.safetensors", {{"a.weight", random_weight(48, 256, at::kFloat, 1)}});
  expect_error(ErrorKind::input, {"'a.weight'", "48 x 256", "48 x 512"},
               [&] { compare_models(host(), *host().open(job.options.output), *host().open(job.dir / "other.safetensors"), 1); });
}

// Layers stored as the options of the quantizer `quip` say.
struct QuipJob : Job {
  explicit QuipJob(const std::vector<testing::NamedTensor>& tensors = {{"a.weight", random_weight(48, 320, at::kFloat, 1)}})
      : Job(tensors) {
    options.target.quantizer = "quip";
  }
  void set(const char* name, OptionValue value) { options.target.quantizer_options["quip"][name] = std::move(value); }
  void set_full() {
    set("store_transformed", true);
    set("transformed_layout", std::string("full"));
  }
  std::string summary() { return decision_of(plan(), "a.weight").label.summary; }
};

TEST(Target, AQuantizersOptionsSpeakWhereThePersonChoseNoStorage) {
  QuipJob job;
  EXPECT_EQ(job.summary(), "int8 row");
  job.set("requant_tensor_per_row", false);
  EXPECT_EQ(job.summary(), "int8 tensor");
  job.set("requant_scheme", std::string("block"));
  job.options.target.storage.block_size = 16;
  EXPECT_EQ(job.summary(), "int8 block 16");
  job.options.target.storage.scaling = Scaling::axis;
  EXPECT_EQ(job.summary(), "int8 axis");
}

TEST(Target, StoredTransformedMeansRotatedWhereTheRunLeavesItOpen) {
  QuipJob job;
  job.set("store_transformed", true);
  EXPECT_EQ(job.summary(), "int8 row, rotated 64");
  job.options.target.storage.rotation = {Rotation::Mode::fixed, 16};
  EXPECT_EQ(job.summary(), "int8 row, rotated 16");
  job.options.target.storage.rotation = {};
  job.options.target.format = "int4";
  EXPECT_EQ(job.summary(), "int4 row, rotated 64");
}

TEST(Target, OptionsThatContradictAChoiceAreAnErrorBeforeAnyLayer) {
  QuipJob job;
  job.set("store_transformed", true);
  job.options.target.storage.scaling = Scaling::tensor;
  expect_error(ErrorKind::usage, {"plugin 'quip'", "'store_transformed'", "tensor scaling"}, [&] { job.plan(); });
  job.options.target.storage.scaling = Scaling::row;
  job.options.target.storage.rotation.mode = Rotation::Mode::off;
  const Error error = testing::error_of([&] { job.plan(); });
  EXPECT_EQ(std::string(error.what()).find("a.weight"), std::string::npos) << error.what();
}

TEST(Target, ALayersOwnChoicesBeatTheQuantizersOptions) {
  QuipJob job;
  job.set("requant_tensor_per_row", false);
  job.options.layers.config = parse_layer_config(R"({"^a$": {"block_size": 16}})");
  EXPECT_EQ(job.summary(), "int8 block 16");
  job.options.layers.config = parse_layer_config(R"({"^a$": {"options": {"requant_tensor_per_row": true}}})");
  EXPECT_EQ(job.summary(), "int8 row");
  job.options.layers.config = parse_layer_config(R"({"^a$": {"optimizer": "rtn"}})");  // whose options do not speak of storage
  EXPECT_EQ(job.summary(), "int8 row");
}

TEST(Target, AQuantizerMayChooseAFormatOfItsOwn) {
  QuipJob job({{"a.weight", random_weight(33, 100, at::kFloat, 1)},
               {"b.weight", random_weight(64, 128, at::kBFloat16, 2)},
               {"plain.weight", random_weight(32, 64, at::kFloat, 3)}});
  job.set_full();
  job.options.layers.config = parse_layer_config(R"({"plain": {"optimizer": "rtn"}, "_default": {}})");
  const ConvertReport report = job.run();
  EXPECT_EQ(decision_of(job.made, "a.weight").label.name, "hadamard_quip");
  EXPECT_EQ(decision_of(job.made, "a.weight").target.layout.note, "padded to 64 x 128: 2.48 bytes per value");
  EXPECT_EQ(decision_of(job.made, "b.weight").target.layout.note, "");
  EXPECT_EQ(decision_of(job.made, "plain.weight").label.name, "int8_tensorwise");
  EXPECT_EQ(default_output(host(), job.options).filename(), "in_quip_hadamard_quip_mixed.safetensors");
  const std::vector<LayerQuality> compared = compare_models(host(), *host().open(job.options.output), *host().open(job.options.input), 2);
  ASSERT_EQ(compared.size(), 3u);
  for (std::size_t i = 0; i < compared.size(); ++i) {
    EXPECT_EQ(compared[i].format, report.layers[i].quality.format);
    EXPECT_EQ(compared[i].mse, report.layers[i].quality.mse);
    EXPECT_GT(compared[i].sqnr_db.value_or(0), 35) << compared[i].name;
  }
}

TEST(Target, AFormatOfAQuantizersOwnMayBeNamed) {
  QuipJob job(
      {{"a.weight", random_weight(33, 100, at::kFloat, 1)}, {"conv.weight", random_weight(8, 12, at::kFloat, 2).view({8, 3, 2, 2})}});
  job.options.target.format = "hadamard_quip";
  for (const char* quantizer : {"quip", "auto"}) {
    job.options.target.quantizer = quantizer;
    const Plan plan = job.plan();
    EXPECT_EQ(plan.chosen_quantizer, "quip");
    EXPECT_EQ(decision_of(plan, "a.weight").label.name, "hadamard_quip");
    EXPECT_EQ(decision_of(plan, "conv.weight").action, Action::copy);
  }
  job.options.target.quantizer = "rtn";
  expect_error(ErrorKind::usage, {"'rtn'", "'hadamard_quip'"}, [&] { job.plan(); });
}

TEST(Target, AFormatThatALayerNamesContradictsALayoutOfTheQuantizersOwn) {
  QuipJob job;
  job.set_full();
  job.options.layers.config = parse_layer_config(R"({"^a$": {"format": "int4"}})");
  expect_error(ErrorKind::input, {"'transformed_layout' full", "format 'int4'"}, [&] { job.plan(); });
}

}  // namespace
}  // namespace qmill
