// Recordings: several layers may share inputs, and the file says which model they are of.
#include "calibration/calibration.h"
#include "calibration/calibration_file.h"
#include "core_support.h"

#include <qmill/core/conversion.h>
#include <qmill/core/model_identity.h>

#include <ATen/TensorOperators.h>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_model;
using testing::TempDir;
using testing::write_model;

using Metadata = std::map<std::string, std::string>;

class Recording {
 public:
  Recording() {
    write_model(dir_ / "model.safetensors", weights(0));
    model_ = host().open(dir_ / "model.safetensors");
  }

  static std::vector<NamedTensor> weights(std::uint64_t seed) {
    std::vector<NamedTensor> tensors;
    for (const char* name : {"a.q.weight", "a.k.weight", "b.weight"}) tensors.push_back({name, random_weight(8, 24, at::kFloat, seed++)});
    return tensors;
  }

  std::filesystem::path write(const std::vector<NamedTensor>& entries, const Metadata& metadata) const {
    write_model(dir_ / "rows.safetensors", entries, metadata);
    return dir_ / "rows.safetensors";
  }

  Calibration open() const { return Calibration(host(), *model_, {.data = dir_ / "rows.safetensors"}, 0); }

  std::vector<std::string> warnings() const {
    ConvertOptions options;
    options.input = dir_ / "model.safetensors";
    options.output = dir_ / "out.safetensors";
    options.calibration.data = dir_ / "rows.safetensors";
    Conversion conversion(host(), options);
    return conversion.plan().warnings;
  }

  const TensorSource& model() const { return *model_; }
  const TempDir& dir() const { return dir_; }

 private:
  TempDir dir_;
  std::unique_ptr<TensorSource> model_;
};

const at::Tensor kRecordedRows = random_weight(40, 24, at::kFloat, 5);

TEST(SharedInputs, EveryLayerOfAGroupHasTheRowsOfItsFirst) {
  const Recording recording;
  recording.write({{"a.q.input", kRecordedRows}}, {{"shared_inputs", R"({"a.k": "a.q", "b": "a.q"})"}});
  const Calibration calibration = recording.open();
  ASSERT_EQ(calibration.account().with_rows.size(), 3u);
  for (const CalibratedRows& layer : calibration.account().with_rows) EXPECT_EQ(layer.rows, 40);
  TaskPool tasks(1);
  const auto buffers = std::make_shared<BufferPool>(0);
  const RunResources resources{tasks, *buffers, nullptr};
  const auto inputs = [&](const char* name) { return calibration.for_layer({name, DType::f32, {8, 24}}, resources); };
  EXPECT_EQ(inputs("a.q.weight")->identity(), inputs("a.k.weight")->identity());
  EXPECT_TRUE(inputs("a.q.weight")->hessian().equal(inputs("b.weight")->hessian()));
}

TEST(SharedInputs, StatisticsMayBeSharedToo) {
  const Recording recording;
  const at::Tensor hessian = kRecordedRows.t().mm(kRecordedRows) / 40;
  recording.write({{"a.q.hessian", (hessian + hessian.t()) / 2}}, {{"shared_inputs", R"({"a.k": "a.q"})"}});
  EXPECT_EQ(recording.open().account().with_hessian, (std::vector<std::string>{"a.q", "a.k"}));
}

TEST(SharedInputs, LayersOfEmptyRowsAreEmptyToo) {
  const Recording recording;
  recording.write({{"a.q.input", kRecordedRows.narrow(0, 0, 0)}, {"b.input", kRecordedRows}}, {{"shared_inputs", R"({"a.k": "a.q"})"}});
  EXPECT_EQ(recording.open().account().empty_entries, (std::vector<std::string>{"a.q.input", "a.k.input"}));
}

TEST(SharedInputs, WhatMakesNoSenseIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "'shared_inputs' in the metadata is [], expected an object"},
      {"{", "it is not valid JSON"},
      {R"({"a.k": 1})", "has 1 for 'a.k', expected the name of a layer"},
      {R"({"a.q": "b"})", "names 'a.q', which has entries of its own"},
      {R"({"a.k": "c"})", "says that 'a.k' has the inputs of 'c', which has no entries"},
      {R"({"a.k": "a.k"})", "says that 'a.k' has the inputs of 'a.k'"},
      {R"({"a.k": "b", "b": "a.q"})", "says that 'a.k' has the inputs of 'b'"},
      {R"({"a.k": "a.q", "a.k": "a.q"})", "names 'a.k' twice"},
  };
  for (const auto& [text, expected] : cases) {
    const Recording recording;
    recording.write({{"a.q.input", kRecordedRows}}, {{"shared_inputs", text}});
    expect_error(ErrorKind::input, {"rows.safetensors", expected}, [&] { recording.open(); });
  }
}

TEST(ModelIdentity, IsOfNamesShapesTypesAndValuesInAnyOrder) {
  const TempDir dir;
  const auto identity = [&](const std::vector<NamedTensor>& tensors, const Metadata& metadata = {}) {
    write_model(dir / "m.safetensors", tensors, metadata);
    return model_identity(*host().open(dir / "m.safetensors"));
  };
  std::vector<NamedTensor> tensors = Recording::weights(0);
  const std::string known = identity(tensors);
  std::swap(tensors[0], tensors[2]);
  EXPECT_EQ(identity(tensors, {{"note", "other metadata"}}), known);
  EXPECT_EQ(identity_difference(known, identity(Recording::weights(9))), "its tensors hold other values");
  tensors[0].name = "c.weight";
  EXPECT_EQ(identity_difference(known, identity(tensors)), "its tensors have other names, types or shapes");
  EXPECT_EQ(identity_difference("not JSON", known), "its tensors have other names, types or shapes");
  EXPECT_EQ(identity_difference("[1]", known), "its tensors have other names, types or shapes");
  EXPECT_EQ(identity_difference(known, known), "");
}

TEST(ModelIdentity, OfTensorsWithoutValues) {
  const TempDir dir;
  write_model(dir / "m.safetensors", {{"empty", at::Tensor(random_weight(1, 4, at::kFloat, 0)).narrow(0, 0, 0)}});
  EXPECT_NE(model_identity(*host().open(dir / "m.safetensors")), "");
}

TEST(RecordedModel, AnotherOneIsAWarning) {
  const Recording recording;
  const std::vector<NamedTensor> rows = {{"a.q.input", kRecordedRows}};
  const auto warns = [&] {
    const std::vector<std::string> warnings = recording.warnings();
    return std::any_of(warnings.begin(), warnings.end(), [](const std::string& text) {
      return text.find("was recorded from another model: its tensors hold") != std::string::npos;
    });
  };
  recording.write(rows, {{"format", "qmill_recording"}, {"checkpoint", model_identity(recording.model())}});
  EXPECT_FALSE(warns());
  write_model(recording.dir() / "other.safetensors", Recording::weights(9));
  const std::string other = model_identity(*host().open(recording.dir() / "other.safetensors"));
  recording.write(rows, {{"format", "qmill_recording"}, {"checkpoint", other}});
  EXPECT_TRUE(warns());
  recording.write(rows, {{"checkpoint", "of another program"}});
  EXPECT_FALSE(warns());
}

TEST(RecordedModel, StatisticsOfARecordingKeepIt) {
  const Recording recording;
  const std::string identity = model_identity(recording.model());
  StatisticsOptions options;
  options.input = recording.write({{"a.q.input", kRecordedRows}}, {{"format", "qmill_recording"}, {"checkpoint", identity}});
  options.output = recording.dir() / "statistics.safetensors";
  write_statistics(host(), options);
  EXPECT_EQ(read_model(options.output).metadata.at("checkpoint"), identity);
  EXPECT_EQ(CalibrationFile(host(), options.output).recorded_model(), identity);
}

}  // namespace
}  // namespace qmill
