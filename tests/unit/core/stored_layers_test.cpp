#include <qmill/core/stored_layers.h>

#include "core_support.h"

#include <qmill/core/compare.h>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace qmill {
namespace {

using testing::bytes_of;
using testing::expect_error;
using testing::host;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::TempDir;
using testing::write_model;


// A file with one int8 layer "l", rows scaled, and whatever else.
struct StoredFile {
  TempDir dir;
  std::filesystem::path path = dir / "q.safetensors";
  std::vector<NamedTensor> tensors = {
      {"l.weight", at::full({4, 6}, 3, at::kChar)}, {"l.weight_scale", at::full({4, 1}, 0.5f)}, {"l.comfy_quant", bytes_of(testing::kRowMarker)}};
  std::map<std::string, std::string> metadata;

  void mark(const std::string& marker) { tensors[2].data = bytes_of(marker); }
  std::vector<StoredLayerEntry> layers() {
    write_model(path, tensors, metadata);
    return stored_layers(host(), *host().open(path));
  }
  std::vector<LayerQuality> compare(const std::vector<NamedTensor>& source) {
    write_model(path, tensors, metadata);
    write_model(dir / "source.safetensors", source);
    return compare_models(host(), *host().open(path), *host().open(dir / "source.safetensors"), 2);
  }
};

TEST(StoredModel, CompareAgreesWithTheReportOfTheRunForEveryFormat) {
  struct Case {
    const char* name;
    void (*set)(ConvertOptions&);
  };
  const Case cases[] = {
      {"row", [](ConvertOptions& o) { o.target.storage.rotation.mode = Rotation::Mode::off; }},
      {"rotated", [](ConvertOptions&) {}},
      {"rotated any", [](ConvertOptions& o) { o.target.storage.rotation.mode = Rotation::Mode::any; }},
      {"tensor", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::tensor; }},
      {"axis", [](ConvertOptions& o) { o.target.storage.scaling = Scaling::axis; }},
      {"block",
       [](ConvertOptions& o) {
         o.target.storage.scaling = Scaling::block;
         o.target.storage.block_size = 32;
       }},
      {"legacy row", [](ConvertOptions& o) { o.target.storage.naming = Naming::legacy; }},
      {"legacy tensor",
       [](ConvertOptions& o) {
         o.target.storage.naming = Naming::legacy;
         o.target.storage.scaling = Scaling::tensor;
       }},
      {"legacy axis",
       [](ConvertOptions& o) {
         o.target.storage.naming = Naming::legacy;
         o.target.storage.scaling = Scaling::axis;
       }},
      {"legacy block",
       [](ConvertOptions& o) {
         o.target.storage.naming = Naming::legacy;
         o.target.storage.scaling = Scaling::block;
         o.target.storage.block_size = 16;
         o.target.storage.legacy_input_scale = true;
       }},
      {"fp16", [](ConvertOptions& o) { o.target.quantizer = "fp16"; }},
      {"mixed",
       [](ConvertOptions& o) {
         o.layers.config = parse_layer_config(R"({"^a$": {"format": "fp16"}, "^b$": {"block_size": 16}, "^c$": {"skip": true}})");
       }},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    Job job({{"a.weight", random_weight(64, 512, at::kFloat, 1)},
             {"b.weight", random_weight(32, 96, at::kFloat, 2)},
             {"c.weight", random_weight(7, 5, at::kBFloat16, 3)},
             {"d.weight", random_weight(1, 1, at::kFloat, 4)},
             {"e.weight", random_weight(33, 1, at::kFloat, 5)},
             {"bias", random_weight(1, 9, at::kFloat, 6).view({9})}});
    test.set(job.options);
    const ConvertReport report = job.run();
    const std::vector<LayerQuality> compared = compare_models(host(), *host().open(job.options.output), *host().open(job.options.input), 2);
    ASSERT_EQ(compared.size(), report.layers.size());
    for (const LayerReport& layer : report.layers) {
      const LayerQuality& found = testing::quality_of(compared, layer.quality.name);
      // Without a marker, one scale of one row may mean the row or the whole tensor: the same values.
      EXPECT_TRUE(layer.quality.name == "d" || found.format == layer.quality.format) << found.format;
      EXPECT_EQ(found.mse, layer.quality.mse) << layer.quality.name;
      EXPECT_EQ(found.max_error, layer.quality.max_error);
      EXPECT_EQ(found.sqnr_db, layer.quality.sqnr_db);
    }
  }
}

TEST(StoredModel, LayersAreNamedWithTheirFormat) {
  Job job({{"a.weight", random_weight(64, 512, at::kFloat, 1)},
           {"b.weight", random_weight(7, 5, at::kFloat, 2)},
           {"kept.weight", random_weight(8, 8, at::kBFloat16, 3)}});
  job.options.layers.exclude = "kept";
  job.run();
  std::map<std::string, std::string> labels;
  for (const StoredLayerEntry& entry : stored_layers(host(), *host().open(job.options.output)))
    labels[entry.info.base] = entry.label.summary;
  EXPECT_EQ(labels, (std::map<std::string, std::string>{{"a", "int8 row, rotated 256"}, {"b", "int8 row"}, {"kept", "BF16"}}));
}

TEST(StoredModel, AMarkerInTheHeaderAloneIsEnough) {
  Job job({{"a.weight", random_weight(64, 512, at::kFloat, 1)}});
  const ConvertReport report = job.run();
  testing::ModelFile file = job.output();
  file.tensors.erase("a.comfy_quant");
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : file.tensors) tensors.push_back({name, tensor});
  write_model(job.dir / "header.safetensors", tensors, file.metadata);
  const auto source = host().open(job.dir / "header.safetensors");
  EXPECT_EQ(stored_layers(host(), *source).at(0).label.summary, "int8 row, rotated 256");
  EXPECT_EQ(compare_models(host(), *source, *host().open(job.options.input), 1).at(0).mse, report.layers.at(0).quality.mse);
}

// As ComfyUI takes the prefix of checkpoints off before it looks for the layers that the header names.
TEST(StoredModel, AnEntryOfTheHeaderMayLackThePrefixOfItsLayer) {
  StoredFile file;
  for (NamedTensor& tensor : file.tensors) tensor.name = "model.diffusion_model." + tensor.name;
  const std::vector<NamedTensor> source = {{"model.diffusion_model.l.weight", at::full({4, 6}, 1.25f)}};
  file.metadata["_quantization_metadata"] = R"({"format_version": "1.0", "layers": {"l": {"format": "int8_tensorwise"}}})";
  EXPECT_DOUBLE_EQ(file.compare(source).at(0).mse, 0.0625);
  file.tensors.pop_back();  // the marker: the header alone is left
  const std::vector<LayerQuality> qualities = file.compare(source);
  ASSERT_EQ(qualities.size(), 1u);
  EXPECT_EQ(qualities[0].name, "model.diffusion_model.l");
  EXPECT_DOUBLE_EQ(qualities[0].mse, 0.0625);
  file.metadata["_quantization_metadata"] = R"({"layers": {"l": {"format": "int8_tensorwise"}, "gone": {"format": "int8_tensorwise"}}})";
  expect_error(ErrorKind::input, {"'gone' is marked but has no tensor 'gone.weight'", "get it again"}, [&] { file.layers(); });
  // Where the file has a layer of just that name, the entry is about that one.
  file.tensors.push_back({"l.weight", at::full({4, 6}, 1, at::kChar)});
  file.metadata["_quantization_metadata"] = R"({"layers": {"l": {"format": "int8_tensorwise"}}})";
  expect_error(ErrorKind::input, {"'l'", "scale"}, [&] { file.layers(); });
}

TEST(StoredModel, AMarkerAndAnEntryWithoutThePrefixThatDifferAreAnError) {
  StoredFile file;
  for (NamedTensor& tensor : file.tensors) tensor.name = "model.diffusion_model." + tensor.name;
  file.metadata["_quantization_metadata"] = R"({"layers": {"l": {"format": "int8_blockwise", "group_size": 2}}})";
  expect_error(ErrorKind::input, {"'model.diffusion_model.l'", "int8_tensorwise", "int8_blockwise", "header"}, [&] { file.layers(); });
}

TEST(StoredModel, AKnownErrorIsMeasuredExactly) {
  StoredFile file;  // every value decodes to 1.5
  const std::vector<LayerQuality> qualities = file.compare({{"l.weight", at::full({4, 6}, 1.25f)}});
  ASSERT_EQ(qualities.size(), 1u);
  EXPECT_DOUBLE_EQ(qualities[0].mse, 0.0625);
  EXPECT_DOUBLE_EQ(qualities[0].max_error, 0.25);
  EXPECT_NEAR(*qualities[0].sqnr_db, 10 * std::log10(1.25 * 1.25 / 0.0625), 1e-12);
}

TEST(StoredModel, NanInTheStoredScaleIsSeen) {
  StoredFile file;
  file.tensors[1].data = at::full({4, 1}, std::nan(""), at::kFloat);
  const LayerQuality quality = file.compare({{"l.weight", at::full({4, 6}, 1.0f)}}).at(0);
  EXPECT_TRUE(std::isnan(quality.mse));
  EXPECT_TRUE(std::isnan(quality.max_error));
  EXPECT_EQ(summarize({quality}, 0).below_threshold, 1u);
}

TEST(StoredModel, MarkerAndHeaderThatDifferAreAnError) {
  StoredFile file;
  file.metadata["_quantization_metadata"] = R"({"format_version": "1.0", "layers": {"l": {"format": "int8_blockwise", "group_size": 2}}})";
  expect_error(ErrorKind::input, {"'l'", "int8_tensorwise", "int8_blockwise", "header"}, [&] { file.layers(); });
  file.metadata["_quantization_metadata"] = R"({"format_version": "1.0", "layers": {"l": {"format": "int8_tensorwise"}}})";
  EXPECT_EQ(file.layers().size(), 1u);
}

TEST(StoredModel, AHeaderEntryThatIsNoObjectOfLayersIsAnError) {
  StoredFile file;
  for (const char* text : {"", "[]", "{}", R"({"layers": []})", "not json", "1e999"}) {
    file.metadata["_quantization_metadata"] = text;
    EXPECT_THROW(file.layers(), Error) << text;
  }
}

TEST(StoredModel, AMarkerThatIsNoJsonIsAnErrorThatNamesTheLayer) {
  StoredFile file;
  for (const char* marker : {"", "not json", "[]", "{}", R"({"format": 8})", "1e999", "\xff"}) {
    file.mark(marker);
    expect_error(ErrorKind::input, {"'l'"}, [&] {
      const auto layers = file.layers();
      if (layers.at(0).format == nullptr) throw Error(ErrorKind::input, "'l' is not recognised");
    });
  }
}

TEST(StoredModel, AMarkerOfAnotherTypeIsAnError) {
  StoredFile file;
  file.tensors[2].data = at::zeros({27});
  expect_error(ErrorKind::input, {"'l.comfy_quant'", "F32", "U8"}, [&] { file.layers(); });
  file.tensors[2].data = at::zeros({70'000}, at::kByte);
  expect_error(ErrorKind::input, {"'l.comfy_quant'", "70000"}, [&] { file.layers(); });
}

TEST(StoredModel, AFormatThatNobodyKnowsIsNamedAndCannotBeCompared) {
  StoredFile file;
  file.mark(R"({"format": "awq_w4a16"})");
  EXPECT_EQ(file.layers().at(0).label.summary, "unknown: awq_w4a16");
  EXPECT_EQ(file.layers().at(0).format, nullptr);
  expect_error(ErrorKind::unsupported, {"'l'", "'awq_w4a16'"}, [&] { file.compare({{"l.weight", at::full({4, 6}, 1.0f)}}); });
}

TEST(StoredModel, AMarkerWithoutItsWeightIsAnError) {
  StoredFile file;
  file.tensors.erase(file.tensors.begin());
  expect_error(ErrorKind::input, {"'l'", "'l.weight'"}, [&] { file.layers(); });
}

TEST(StoredModel, AMarkerWithoutItsScaleIsAnError) {
  StoredFile file;
  file.tensors.erase(file.tensors.begin() + 1);
  expect_error(ErrorKind::input, {"'l'", "scale"}, [&] { file.layers(); });
}

TEST(StoredModel, ScalesThatContradictTheMarkerAreAnError) {
  StoredFile file;
  for (const at::Tensor& scale :
       {at::zeros({3, 1}), at::zeros({4, 1}, at::kHalf), at::zeros({4, 4}), at::zeros({5}), at::zeros({0, 1}), at::zeros({4, 1, 1})}) {
    file.tensors[1].data = scale;
    expect_error(ErrorKind::input, {"'l'", "expected"}, [&] { file.layers(); });
  }
  file.tensors[1].data = at::zeros({4, 1});
  for (const char* marker :
       {R"({"format": "int8_blockwise", "group_size": 3})", R"({"format": "int8_blockwise"})", R"({"format": "int8_axiswise"})",
        R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 16})", R"({"format": "int8_tensorwise", "convrot": true})",
        R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": -4})", R"({"format": "int8_blockwise", "group_size": 0})"}) {
    file.mark(marker);
    EXPECT_THROW(file.layers(), Error) << marker;
  }
}

TEST(StoredModel, ALayerThatTheSourceLacksIsAnError) {
  StoredFile file;
  expect_error(ErrorKind::input, {"'l.weight'", "source has no"}, [&] { file.compare({{"other.weight", at::full({4, 6}, 1.0f)}}); });
}

TEST(StoredModel, ALayerOfAnotherShapeOrTypeIsAnError) {
  StoredFile file;
  expect_error(ErrorKind::input, {"'l.weight'", "6 x 4", "4 x 6"}, [&] { file.compare({{"l.weight", at::full({6, 4}, 1.0f)}}); });
  expect_error(ErrorKind::input, {"'l.weight'", "I32"}, [&] { file.compare({{"l.weight", at::full({4, 6}, 1, at::kInt)}}); });
}

TEST(StoredModel, ComparingWhatIsNotQuantizedIsAnError) {
  StoredFile file;
  file.tensors = {{"l.weight", at::full({4, 6}, 1.0f)}};
  expect_error(ErrorKind::input, {"no layer", "quantized"}, [&] { file.compare({{"l.weight", at::full({4, 6}, 1.0f)}}); });
}

TEST(StoredModel, ComparingWithAnotherQuantizedFileIsAnError) {
  StoredFile file;
  expect_error(ErrorKind::input, {"have the same types", "'l.weight' is I8 in both", "made from"}, [&] { file.compare(file.tensors); });
}

TEST(StoredModel, ComparingCanBeInterrupted) {
  Job job({{"a.weight", random_weight(64, 512, at::kFloat, 1)}});
  job.run();
  const std::atomic<bool> cancel = true;
  expect_error(ErrorKind::cancelled, {"interrupted"},
               [&] { compare_models(host(), *host().open(job.options.output), *host().open(job.options.input), 2, &cancel); });
}

TEST(StoredModel, PlainFilesHaveLayersWithoutAFormat) {
  StoredFile file;
  file.tensors = {{"a.weight", at::full({4, 6}, 1.0f)}, {"i.weight", at::full({4, 6}, 1, at::kChar)}, {"b.bias", at::full({4}, 1.0f)}};
  const auto layers = file.layers();
  ASSERT_EQ(layers.size(), 2u);
  for (const StoredLayerEntry& entry : layers) EXPECT_EQ(entry.format, nullptr) << entry.info.base;
}

TEST(Quality, TheMeanAndTheVerdictLeaveOutExactLayersAndCountNan) {
  const auto quality = [](const char* name, std::optional<double> sqnr) {
    return LayerQuality{name, "int8_tensorwise", "int8 row", 0.1, sqnr, 1};
  };
  const std::vector<LayerQuality> layers = {quality("a", 20.0), quality("b", 40.0), quality("c", std::nullopt)};
  const QualitySummary summary = summarize(layers, 30);
  EXPECT_EQ(summary.layers, 3u);
  EXPECT_EQ(summary.exact, 1u);
  EXPECT_EQ(summary.below_threshold, 1u);
  EXPECT_DOUBLE_EQ(*summary.mean_sqnr_db, 30.0);
  EXPECT_EQ(summary.worst->name, "a");
  EXPECT_EQ(summarize({quality("n", std::nan(""))}, -1000).below_threshold, 1u);
  EXPECT_FALSE(summarize({}, 30).mean_sqnr_db);
  EXPECT_EQ(summarize({}, 30).worst, nullptr);
}

TEST(Quality, TheReportIsATableSortedByName) {
  const std::string text = quality_report_text(
      {{"b", "int8_tensorwise", "int8 row", 0.25, 20.0, 1.5}, {"a", "int8_tensorwise", "int8 row", 0, std::nullopt, 0}}, 30);
  EXPECT_LT(text.find("\na "), text.find("\nb "));
  EXPECT_NE(text.find("0.25000000 | 20.00      | 1.5000"), std::string::npos) << text;
  EXPECT_NE(text.find("| inf"), std::string::npos);
  EXPECT_NE(text.find("Mean SQNR: 20.00 dB"), std::string::npos);
  EXPECT_NE(text.find("Layers below 30.0 dB: 1 / 2"), std::string::npos);
  EXPECT_EQ(quality_report_text({}, 30), "No quality metrics were collected.\n");
}

}  // namespace
}  // namespace qmill
