#include "calibration/calibration.h"
#include "model/content_hash.h"
#include "calibration/input_rows.h"
#include "calibration/substitute_hessian.h"
#include "core_support.h"
#include "io/hash.h"

#include <qmill/names.h>

#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <limits>
#include <set>

namespace qmill {
namespace {

using testing::expect_error;
using testing::host;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::read_model;
using testing::TempDir;
using testing::write_bytes;
using testing::write_model;
using testing::write_sparse_model;

constexpr std::int64_t kSeed = 7;

// A model of layers with these names, 8 x `columns`, and a calibration of it.
struct Calibrated {
  explicit Calibrated(std::vector<std::string> layers = {"a.q", "a.k", "b"}, std::int64_t model_columns = 24) : columns(model_columns) {
    std::vector<NamedTensor> tensors;
    for (std::size_t i = 0; i < layers.size(); ++i) tensors.push_back({layers[i] + ".weight", random_weight(8, columns, at::kBFloat16, i)});
    write_model(dir / "model.safetensors", tensors);
    model = host().open(dir / "model.safetensors");
    options.data = dir / "data.safetensors";
  }

  void write(const std::vector<NamedTensor>& entries) const { write_model(options.data, entries); }
  Calibration open() const { return Calibration(host(), *model, options, kSeed); }

  std::unique_ptr<LayerCalibration> layer(const Calibration& calibration, const std::string& name, const at::Tensor& values = {}) const {
    return calibration.for_layer({name + ".weight", DType::bf16, {8, columns}}, resources, values);
  }

  std::int64_t columns;
  TempDir dir;
  std::unique_ptr<TensorSource> model;
  CalibrationOptions options;
  TaskPool tasks{2};
  std::shared_ptr<BufferPool> buffers = std::make_shared<BufferPool>(1 << 20);
  RunResources resources{tasks, *buffers, nullptr};
};

at::Tensor inputs(std::int64_t rows, std::int64_t columns, at::ScalarType type = at::kFloat, std::uint64_t seed = 1) {
  return (random_weight(rows, columns, at::kFloat, seed) + 0.5).to(type);
}

at::Tensor hessian_of(const at::Tensor& rows) {
  const at::Tensor x = rows.to(at::kDouble);
  return x.t().mm(x) / static_cast<double>(x.size(0));
}

// The largest error of an entry, of the geometric mean of its two diagonal entries.
double relative_error(const at::Tensor& hessian, const at::Tensor& expected) {
  const at::Tensor size = expected.diagonal().sqrt();
  return (hessian.to(at::kDouble) - expected).div(size.unsqueeze(0)).div(size.unsqueeze(1)).abs().max().item<double>();
}

at::Tensor fitted(const at::Tensor& rows) {
  const RowSplit split(rows.size(0), kSeed);
  std::vector<at::Tensor> parts;
  for (const std::int64_t row : split.fitted_rows(0, rows.size(0))) parts.push_back(rows.narrow(0, row, 1));
  return at::cat(parts);
}

TEST(RowSplit, OneOfFiveConsecutiveRowsIsKeptApart) {
  for (const std::int64_t rows : {0, 1, 4, 5, 6, 9, 10, 1003}) {
    const RowSplit split(rows, kSeed);
    for (std::int64_t run = 0; run < rows / 5; ++run) {
      int kept = 0;
      for (std::int64_t row = run * 5; row < run * 5 + 5; ++row) kept += split.is_kept_apart(row);
      EXPECT_EQ(kept, 1) << rows << " " << run;
    }
    for (std::int64_t row = rows / 5 * 5; row < rows; ++row) EXPECT_FALSE(split.is_kept_apart(row));
    EXPECT_EQ(split.kept_apart(), rows / 5);
    EXPECT_EQ(static_cast<std::int64_t>(split.fitted_rows(0, rows).size()), split.fitted());
    for (const std::int64_t row : split.kept_rows(1024)) EXPECT_TRUE(split.is_kept_apart(row));
  }
}

TEST(RowSplit, TheSeedChoosesAndEveryPlaceInARunIsChosen) {
  const RowSplit a(500, 1), b(500, 2);
  EXPECT_EQ(a.kept_rows(1024), RowSplit(500, 1).kept_rows(1024));
  EXPECT_NE(a.kept_rows(1024), b.kept_rows(1024));
  std::set<std::int64_t> places;
  for (const std::int64_t row : a.kept_rows(1024)) places.insert(row % 5);
  EXPECT_EQ(places.size(), 5u);
}

TEST(RowSplit, ALimitTakesThemEvenlySpaced) {
  const RowSplit split(std::int64_t{1} << 40, 3);
  const std::vector<std::int64_t> rows = split.kept_rows(1024);
  ASSERT_EQ(rows.size(), 1024u);
  const std::int64_t distance = split.rows() / 1024;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(split.is_kept_apart(rows[i]));
    EXPECT_NEAR(static_cast<double>(rows[i]), static_cast<double>(distance) * static_cast<double>(i), 10);
  }
}

TEST(Calibration, TheHessianIsThatOfTheRowsThatAreNotKeptApart) {
  constexpr double kBound = 1e-6;
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble})
    for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {4, 7}, {5, 24}, {2600, 24}, {1300, 1100}}) {
      const Calibrated test({"a.q"}, columns);
      const at::Tensor x = inputs(rows, columns, type);
      test.write({{"a.q.input", x}});
      const Calibration calibration = test.open();
      const auto layer = test.layer(calibration, "a.q");
      ASSERT_NE(layer, nullptr);
      const at::Tensor used = fitted(x.to(at::kFloat));
      const at::Tensor hessian = layer->hessian();
      EXPECT_TRUE(hessian.equal(hessian.t()));
      EXPECT_LT(relative_error(hessian, hessian_of(used)), kBound) << rows << " x " << columns;
      EXPECT_TRUE(layer->mean().allclose(used.to(at::kDouble).mean(0).to(at::kFloat), 1e-6, 1e-6));
      EXPECT_EQ(layer->row_count(), used.size(0));
      EXPECT_TRUE(layer->rows().equal(used));
      const at::Tensor kept = layer->held_out_rows();
      EXPECT_EQ(kept.defined() ? kept.size(0) : 0, rows / 5);
      for (std::int64_t i = 0; kept.defined() && i < kept.size(0); ++i)
        EXPECT_TRUE(kept[i].equal(x.to(at::kFloat)[RowSplit(rows, kSeed).kept_row(i)]));
    }
}

TEST(Calibration, AtMostSoManyRowsAreHandedOut) {
  const Calibrated test;
  test.write({{"b.input", inputs(6000, 24)}});
  const Calibration calibration = test.open();
  EXPECT_EQ(test.layer(calibration, "b")->held_out_rows().size(0), 1024);
  EXPECT_EQ(test.layer(calibration, "b")->row_count(), 4800);
  EXPECT_EQ(calibration.account().with_rows.front().kept_apart, 1200);
}

TEST(Calibration, TheSameBitsForEveryNumberOfThreads) {
  Calibrated test({"a.q"}, 1100);
  test.write({{"a.q.input", inputs(2500, 1100, at::kHalf)}});
  const Calibration calibration = test.open();
  const at::Tensor hessian = test.layer(calibration, "a.q")->hessian();
  for (const int threads : {1, 3, 8}) {
    TaskPool tasks(threads);
    const RunResources resources{tasks, *test.buffers, nullptr};
    const auto layer = calibration.for_layer({"a.q.weight", DType::bf16, {8, 1100}}, resources);
    EXPECT_TRUE(layer->hessian().equal(hessian)) << threads;
  }
}

TEST(Calibration, LayersWithTheSameRowsHaveOneIdentity) {
  const Calibrated test({"a.q", "a.k", "a.v", "a.o"});
  const at::Tensor x = inputs(50, 24);
  at::Tensor other = x.clone();
  other[49][23] += 1;
  test.write({{"a.q.input", x}, {"a.k.input", x}, {"a.v.input", other}, {"a.o.input", x.narrow(0, 0, 49)}});
  const Calibration calibration = test.open();
  const std::string identity = test.layer(calibration, "a.q")->identity();
  EXPECT_FALSE(identity.empty());
  EXPECT_EQ(test.layer(calibration, "a.k")->identity(), identity);
  EXPECT_NE(test.layer(calibration, "a.v")->identity(), identity);
  EXPECT_NE(test.layer(calibration, "a.o")->identity(), identity);
}

TEST(Calibration, AMeanBelongsToTheIdentityOfAHessian) {
  const Calibrated test;
  const at::Tensor h = at::eye(24);
  test.write({{"a.q.hessian", h}, {"a.q.mean", at::zeros({24})}, {"a.k.hessian", h}, {"a.k.mean", at::ones({24})}, {"b.hessian", h}});
  const Calibration calibration = test.open();
  std::set<std::string> identities;
  for (const char* layer : {"a.q", "a.k", "b"}) identities.insert(test.layer(calibration, layer)->identity());
  EXPECT_EQ(identities.size(), 3u);
}

TEST(ContentHash, IsMurmurHash3) {
  const auto hash = [](std::string_view text) { return hash_text(std::as_bytes(std::span(text))); };
  EXPECT_EQ(hash(""), "00000000000000000000000000000000");
  EXPECT_EQ(hash("hello"), "cbd8a7b341bd9b025b1e906a48ae1d19");
  EXPECT_EQ(hash("The quick brown fox jumps over the lazy dog"), "e34bbc7bbc071b6c7a433ca9c49a9347");
}

TEST(Calibration, AFileOfStatisticsIsTakenAsItIs) {
  const Calibrated test;
  const at::Tensor x = inputs(100, 24);
  const at::Tensor h = hessian_of(x).to(at::kFloat);
  test.write({{"a.q.hessian", h}, {"a.q.mean", x.mean(0)}, {"b.hessian", h.to(at::kDouble)}});
  const Calibration calibration = test.open();
  const auto layer = test.layer(calibration, "a.q");
  EXPECT_TRUE(layer->hessian().allclose(h));
  EXPECT_TRUE(layer->hessian().equal(layer->hessian().t()));
  EXPECT_TRUE(layer->mean().equal(x.mean(0)));
  EXPECT_EQ(layer->row_count(), 0);
  EXPECT_FALSE(layer->rows().defined());
  EXPECT_FALSE(layer->held_out_rows().defined());
  EXPECT_TRUE(calibration.knows_mean({"a.q.weight", DType::bf16, {8, 24}}));
  EXPECT_FALSE(calibration.knows_mean({"b.weight", DType::bf16, {8, 24}}));
  EXPECT_FALSE(test.layer(calibration, "b")->mean().defined());
}

TEST(Calibration, NamesMatchWithThePrefixesOfEitherSide) {
  const at::Tensor x = inputs(10, 24);
  const std::pair<const char*, const char*> pairs[] = {{"model.diffusion_model.a.q", "a.q"},
                                                       {"a.q", "diffusion_model.a.q"},
                                                       {"model.layers.0.q", "transformer.layers.0.q"},
                                                       {"net.a", "a.weight"},
                                                       {"model.a", "base_model.model.model.a"}};
  for (const auto& [layer, entry] : pairs) {
    const Calibrated test({layer});
    test.write({{std::string(entry) + ".input", x}});
    EXPECT_NE(test.layer(test.open(), layer), nullptr) << layer << " " << entry;
  }
}

TEST(Calibration, AnExactNameBeatsPrefixesAndAnAmbiguousOneIsAnError) {
  const at::Tensor x = inputs(10, 24);
  const Calibrated test({"a", "model.a", "b"});
  test.write({{"model.a.input", x}});
  EXPECT_EQ(test.open().account().with_rows.front().layer, "model.a");
  test.write({{"net.a.input", x}});
  expect_error(ErrorKind::input, {"data.safetensors", "'net.a' could be each of the layers 'a', 'model.a'"}, [&] { test.open(); });
  test.write({{"b.input", x}, {"model.b.input", x}});
  expect_error(ErrorKind::input, {"data.safetensors", "'b'", "'model.b'"}, [&] { test.open(); });
}

TEST(Calibration, TheAccountListsEveryLayerOnceAndWhatMatchesNone) {
  Calibrated test({"rows", "hessian", "channels", "none"});
  const at::Tensor x = inputs(7, 24);
  test.write({{"rows.input", x},
              {"hessian.hessian", at::eye(24)},
              {"channels.channel_max", at::ones({24})},
              {"channels.input_scale", at::ones({})},
              {"gone.input", x},
              {"rows.inputs", x},
              {"odd", x}});
  const CalibrationAccount account = test.open().account();
  EXPECT_EQ(account.layers, 4u);
  ASSERT_EQ(account.with_rows.size(), 1u);
  EXPECT_EQ(account.with_rows[0].layer, "rows");
  EXPECT_EQ(account.with_rows[0].rows, 7);
  EXPECT_EQ(account.with_rows[0].kept_apart, 1);
  EXPECT_EQ(account.with_hessian, std::vector<std::string>{"hessian"});
  EXPECT_EQ(account.with_channels, std::vector<std::string>{"channels"});
  EXPECT_EQ(account.without, std::vector<std::string>{"none"});
  EXPECT_EQ(std::set<std::string>(account.unmatched_entries.begin(), account.unmatched_entries.end()),
            (std::set<std::string>{"gone.input", "rows.inputs", "odd"}));
  EXPECT_EQ(account.informed(), 2u);
  EXPECT_EQ(test.layer(test.open(), "channels"), nullptr);
  EXPECT_EQ(test.layer(test.open(), "none"), nullptr);
}

TEST(Calibration, EntriesThatDoNotFitAreErrorsThatNameThem) {
  const Calibrated test;
  struct Case {
    std::vector<NamedTensor> entries;
    std::vector<std::string> parts;
  };
  const at::Tensor x = inputs(10, 24);
  const std::vector<Case> cases = {
      {{{"b.input", inputs(10, 23)}}, {"'b.input'", "10 x 23", "rows x 24"}},
      {{{"b.input", inputs(24, 24).view({2, 8, 36})}}, {"'b.input'", "2 x 8 x 36"}},
      {{{"b.input", x.to(at::kInt)}}, {"'b.input'", "I32", "F32, F16, BF16 or F64"}},
      {{{"b.input", x.narrow(0, 0, 0)}}, {"'b.input'", "0 rows"}},
      {{{"b.hessian", x}}, {"'b.hessian'", "24 x 24"}},
      {{{"b.channel_max", at::ones({23})}}, {"'b.channel_max'", "23", "24"}},
      {{{"b.input", x}, {"b.hessian", at::eye(24)}}, {"'b.hessian'", "beside rows"}},
      {{{"b.mean", at::ones({24})}}, {"'b.mean'", "stands alone"}},
      {{{"c.input", x}}, {"no entry matches", "'c.input'", "a.q.input"}},
      {{}, {"no entry matches"}},
  };
  for (const Case& each : cases) {
    test.write(each.entries);
    const Error error = testing::error_of([&] { test.open(); });
    EXPECT_EQ(error.kind(), ErrorKind::input);
    const std::string line = error.what();
    EXPECT_NE(line.find("data.safetensors"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    for (const std::string& part : each.parts) EXPECT_NE(line.find(part), std::string::npos) << "no " << part << " in " << line;
  }
}

TEST(Calibration, DamagedAndMissingFilesAreErrors) {
  const Calibrated test;
  test.write({{"b.input", inputs(10, 24)}});
  const std::string bytes = testing::read_bytes(test.options.data);
  write_bytes(test.options.data, bytes.substr(0, bytes.size() - 1));
  expect_error(ErrorKind::input, {"data.safetensors"}, [&] { test.open(); });
  write_bytes(test.options.data, "");
  expect_error(ErrorKind::input, {"data.safetensors"}, [&] { test.open(); });
  std::filesystem::remove(test.options.data);
  expect_error(ErrorKind::io, {"data.safetensors"}, [&] { test.open(); });
}

TEST(Calibration, ValuesThatAreNotFiniteAreFoundWhenTheyAreRead) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (const float value : bad) {
    const Calibrated test;
    at::Tensor x = inputs(50, 24);
    x[37][3] = value;
    at::Tensor h = at::eye(24);
    h[3][4] = value;
    test.write({{"a.q.input", x}, {"b.hessian", h}});
    const Calibration calibration = test.open();
    expect_error(ErrorKind::input, {"data.safetensors", "'a.q.input'", "row 37", "finite"}, [&] {
      test.layer(calibration, "a.q")->hessian();
      test.layer(calibration, "a.q")->held_out_rows();
    });
    expect_error(ErrorKind::input, {"data.safetensors", "'b.hessian'", "finite"}, [&] { test.layer(calibration, "b")->hessian(); });
  }
}

TEST(Calibration, SquaresBeyondF32AreAnError) {
  const Calibrated test;
  test.write({{"b.input", at::full({10, 24}, 1e25)}});
  expect_error(ErrorKind::input, {"'b.input'", "column 0", "F32"}, [&] { test.layer(test.open(), "b")->hessian(); });
}

TEST(Calibration, AHessianMustBeSymmetricAndNotNegativeOnItsDiagonal) {
  const Calibrated test;
  at::Tensor skew = at::eye(24);
  skew[2][5] = 0.01;
  at::Tensor negative = at::eye(24);
  negative[6][6] = -1;
  at::Tensor nearly = hessian_of(inputs(50, 24)).to(at::kFloat);
  nearly[2][5] += 1e-6;
  test.write({{"a.q.hessian", skew}, {"a.k.hessian", negative}, {"b.hessian", nearly}});
  const Calibration calibration = test.open();
  expect_error(ErrorKind::input, {"'a.q.hessian'", "at 5, 2", "same value"}, [&] { test.layer(calibration, "a.q")->hessian(); });
  expect_error(ErrorKind::input, {"'a.k.hessian'", "-1", "at 6"}, [&] { test.layer(calibration, "a.k")->hessian(); });
  const at::Tensor hessian = test.layer(calibration, "b")->hessian();
  EXPECT_TRUE(hessian.equal(hessian.t()));
}

TEST(Calibration, ManyRowsTakeLittleMemory) {
  // 256 GB of zeros as a hole: opening reads headers, and what is handed out is 1024 rows.
  const Calibrated test({"b"}, 1024);
  write_sparse_model(test.options.data, {{"b.input", DType::f16, {std::int64_t{1} << 27, 1024}}});
  const Calibration calibration = test.open();
  EXPECT_EQ(test.layer(calibration, "b")->held_out_rows().sizes(), (at::IntArrayRef{1024, 1024}));
}

TEST(Calibration, JsonHoldsChannelStatistics) {
  Calibrated test({"a", "b", "c"}, 3);
  test.options.data = test.dir / "data.json";
  write_bytes(test.options.data,
              R"({"a": {"channel_max": [1, 2, 4], "channel_mean": [0.5, 1, 2], "input_scale": 0.1}, "model.b": 0.5, "d": 1})");
  CalibrationAccount account = test.open().account();
  EXPECT_EQ(account.with_channels, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(account.without, std::vector<std::string>{"c"});
  EXPECT_EQ(account.unmatched_entries, std::vector<std::string>{"d"});
  test.options.smoothquant = true;
  account = test.open().account();
  EXPECT_EQ(account.smoothed, std::vector<std::string>{"a"});
  EXPECT_EQ(account.with_channels, std::vector<std::string>{"b"});
}

TEST(Calibration, JsonThatIsSomethingElseIsAnErrorThatSaysWhere) {
  Calibrated test({"a"}, 3);
  test.options.data = test.dir / "data.json";
  const std::pair<const char*, const char*> cases[] = {
      {"", "JSON"},
      {"{", "JSON"},
      {"[1]", "expected an object"},
      {R"({"a": "text"})", "'a'"},
      {R"({"a": {"hessian": [1]}})", "'hessian' of 'a'"},
      {R"({"a": {"channel_max": 3}})", "'channel_max' of 'a'"},
      {R"({"a": {"channel_max": [1, 2]}})", "2 values"},
      {R"({"a": {"channel_max": [1, 2, "x"]}})", "'channel_max' of 'a'"},
      {R"({"a": {"channel_max": [1, 2, -1]}})", "'channel_max' of 'a'"},
      {R"({"a": {"channel_max": [1, 2, 1e300]}})", "'channel_max' of 'a'"},
      {R"({"a": 1, "a": 2})", "twice"},
      {R"({"b": 1})", "no entry matches"},
      {"{}", "no entry matches"},
  };
  for (const auto& [text, part] : cases) {
    write_bytes(test.options.data, text);
    expect_error(ErrorKind::input, {"data.json", part}, [&] { test.open(); });
  }
}

TEST(Calibration, SmoothquantWeightsColumnsOfLayersThatHaveOnlyMaxima) {
  Calibrated test({"a", "b"}, 4);
  test.options.smoothquant = true;
  test.options.smoothquant_alpha = 0.25;
  test.write({{"a.channel_max", at::tensor({1.f, 16.f, 0.f, 4.f})}, {"b.input", inputs(10, 4)}, {"b.channel_max", at::ones({4})}});
  const Calibration calibration = test.open();
  EXPECT_EQ(calibration.account().smoothed, std::vector<std::string>{"a"});
  EXPECT_EQ(test.layer(calibration, "a"), nullptr) << "needs the weight";
  const at::Tensor weight = at::tensor({1.f, -2.f, 1.f, 0.f, -16.f, 1.f, 3.f, 0.f}).view({2, 4});
  const auto layer = test.layer(calibration, "a", weight);
  const double t[] = {1 / std::pow(16, 0.75), std::pow(16, 0.25) / std::pow(2, 0.75), 1e-5, 1};  // the last divides by zero
  double sum = 0;
  for (const double each : t) sum += each * each;
  const at::Tensor hessian = layer->hessian();
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) EXPECT_NEAR(hessian[i][j].item<double>(), i == j ? 4 * t[i] * t[i] / sum : 0, 1e-6) << i << " " << j;
  EXPECT_FALSE(layer->mean().defined());
  EXPECT_EQ(layer->row_count(), 0);
  EXPECT_GT(test.layer(calibration, "b", weight)->row_count(), 0);
}

TEST(Calibration, SmoothquantWithoutInputsAndAWrongAlphaAreUsageErrors) {
  Calibrated test;
  test.options.smoothquant = true;
  test.options.data.clear();
  expect_error(ErrorKind::usage, {"`smoothquant`"}, [&] { test.open(); });
  test.options.data = test.dir / "data.safetensors";
  for (const double alpha : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    test.options.smoothquant_alpha = alpha;
    expect_error(ErrorKind::usage, {"`smoothquant_alpha`"}, [&] { test.open(); });
  }
}

TEST(Calibration, ALoraGuidesEveryLayerThatItTouchesAndDataWin) {
  Calibrated test;
  const at::Tensor down = random_weight(3, 24, at::kHalf, 5);
  test.options.lora = test.dir / "lora.safetensors";
  write_model(test.options.lora, {{"a.q.lora_A.weight", down},
                                  {"a.q.lora_B.weight", at::ones({8, 3})},
                                  {"b.lora_down.weight", at::zeros({1, 24})},
                                  {"b.lora_up.weight", at::ones({8, 1})},
                                  {"other.lora_A.weight", down},
                                  {"other.lora_B.weight", at::ones({8, 3})}});
  test.options.data.clear();
  {
    const Calibration calibration = test.open();
    EXPECT_EQ(calibration.account().guided_by_lora, (std::vector<std::string>{"a.q", "b"}));
    EXPECT_EQ(calibration.account().unmatched_entries.size(), 2u);
    const auto layer = test.layer(calibration, "a.q");
    const at::Tensor a = down.to(at::kDouble);
    at::Tensor expected = a.t().mm(a);
    expected = expected * 24 / expected.diagonal().sum() + at::eye(24, at::kDouble);
    EXPECT_LT(relative_error(layer->hessian(), expected), 1e-6);
    EXPECT_FALSE(layer->mean().defined());
    EXPECT_TRUE(test.layer(calibration, "b")->hessian().equal(at::eye(24))) << "zeros say nothing";
  }
  test.options.data = test.dir / "data.safetensors";
  test.write({{"a.q.input", inputs(10, 24)}});
  const CalibrationAccount account = test.open().account();
  EXPECT_EQ(account.guided_by_lora, std::vector<std::string>{"b"});
  EXPECT_EQ(account.with_rows.size(), 1u);
}

TEST(Calibration, ALoraThatTouchesNothingOrDoesNotFitIsAnError) {
  Calibrated test;
  test.options.data.clear();
  test.options.lora = test.dir / "lora.safetensors";
  expect_error(ErrorKind::io, {"lora.safetensors"}, [&] { test.open(); });
  write_model(test.options.lora, {{"x.lora_A.weight", at::ones({2, 24})}, {"x.lora_B.weight", at::ones({8, 2})}});
  expect_error(ErrorKind::input, {"lora.safetensors", "x.lora_A.weight"}, [&] { test.open(); });
  write_model(test.options.lora, {{"b.lora_A.weight", at::ones({2, 23})}, {"b.lora_B.weight", at::ones({8, 2})}});
  expect_error(ErrorKind::input, {"lora.safetensors", "b.lora_A.weight", "2 x 23", "24 columns"}, [&] { test.open(); });
}

TEST(Calibration, PlansAreMadeWithIt) {
  Job job({{"a.weight", random_weight(32, 24, at::kFloat, 1)}, {"b.weight", random_weight(32, 24, at::kFloat, 2)}});
  job.options.calibration.data = job.dir / "data.safetensors";
  write_model(job.options.calibration.data, {{"a.input", inputs(40, 24)}, {"x.input", inputs(4, 24)}});
  const Plan plan = job.plan();
  ASSERT_TRUE(plan.calibration_account);
  EXPECT_EQ(plan.calibration_account->without, std::vector<std::string>{"b"});
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_NE(plan.warnings.front().find("'x.input'"), std::string::npos);
  EXPECT_EQ(plan.chosen_quantizer, "gptq");
  EXPECT_NE(plan.chosen_because.find("1 of 2 layers; rtn for the others"), std::string::npos) << plan.chosen_because;
  EXPECT_EQ(testing::decision_of(plan, "a.weight").quantizer->info().name, "gptq");
  EXPECT_EQ(testing::decision_of(plan, "b.weight").quantizer->info().name, "rtn");
  job.options.target.quantizer = "rtn";
  EXPECT_EQ(job.plan().chosen_because, "");
  EXPECT_EQ(testing::decision_of(job.plan(), "a.weight").quantizer->info().name, "rtn");
  job.options.calibration.data.clear();
  job.options.target.quantizer = "auto";
  EXPECT_EQ(job.plan().chosen_quantizer, "rtn");
  EXPECT_FALSE(job.plan().calibration_account);
}

TEST(Statistics, AreThoseOfAllRowsAndReadBack) {
  Calibrated test({"a.q", "a.k", "b"});
  const at::Tensor x = inputs(1300, 24, at::kHalf);
  const at::Tensor y = inputs(3, 24);
  test.write({{"a.q.input", x}, {"a.k.input", x}, {"b.input", y}, {"b.note", y}});
  const StatisticsOptions options{test.options.data, test.dir / "statistics.safetensors", false, false, 2};
  const StatisticsReport report = write_statistics(host(), options);
  EXPECT_EQ(report.layers.size(), 3u);
  EXPECT_EQ(report.distinct, 2u);
  EXPECT_EQ(report.unmatched_entries, std::vector<std::string>{"b.note"});
  test.options.data = options.output;
  const Calibration calibration = test.open();
  const at::Tensor all = x.to(at::kFloat);
  for (const char* layer : {"a.q", "a.k"}) {
    EXPECT_LT(relative_error(test.layer(calibration, layer)->hessian(), hessian_of(all)), 1e-6);
    EXPECT_TRUE(test.layer(calibration, layer)->mean().allclose(all.mean(0), 1e-5, 1e-6));
  }
  const testing::ModelFile file = read_model(options.output);
  EXPECT_TRUE(file.tensors.at("b.channel_max").equal(y.abs().amax(0)));
  EXPECT_TRUE(file.tensors.at("b.channel_mean").allclose(y.abs().mean(0)));
  EXPECT_FLOAT_EQ(file.tensors.at("a.q.input_scale").item<float>(), all.abs().max().item<float>() / 127);
}

TEST(Statistics, ReplaceNothingUnaskedAndLeaveNothingOnError) {
  const Calibrated test;
  at::Tensor bad = inputs(10, 24);
  bad[0][0] = std::numeric_limits<float>::quiet_NaN();
  test.write({{"a.q.input", inputs(10, 24)}, {"b.input", bad}});
  StatisticsOptions options{test.options.data, test.dir / "statistics.safetensors", false, false, 2};
  expect_error(ErrorKind::input, {"'b.input'", "row 0"}, [&] { write_statistics(host(), options); });
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test.dir.path())) names.insert(entry.path().filename().string());
  EXPECT_EQ(names, (std::set<std::string>{"model.safetensors", "data.safetensors"}));
  test.write({{"b.input", inputs(10, 24)}});
  write_bytes(options.output, "mine");
  expect_error(ErrorKind::usage, {"exists already"}, [&] { write_statistics(host(), options); });
  EXPECT_EQ(testing::read_bytes(options.output), "mine");
  options.overwrite = true;
  write_statistics(host(), options);
  options.output = options.input;
  expect_error(ErrorKind::usage, {"same file"}, [&] { write_statistics(host(), options); });
  options.output = test.dir / "statistics.txt";
  expect_error(ErrorKind::usage, {".txt"}, [&] { write_statistics(host(), options); });
}

TEST(Statistics, ClaimsOfAHugeWidthAreRefused) {
  const Calibrated test;
  write_sparse_model(test.options.data, {{"b.input", DType::f16, {1, std::int64_t{1} << 32}}});
  expect_error(ErrorKind::unsupported, {"'b.input'", "columns"}, [&] {
    write_statistics(host(), {test.options.data, test.dir / "out.safetensors", false, false, 1});
  });
}

}  // namespace
}  // namespace qmill
