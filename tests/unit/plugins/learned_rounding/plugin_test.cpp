#include <formats.h>
#include <model_file.h>
#include <projected_rounding.h>
#include <qmill/numerics/low_rank.h>
#include <qmill/numerics/one_thread.h>
#include <qmill/numerics/rounding.h>
#include <qmill/plugin.h>
#include <soft_rounding.h>
#include <test_context.h>
#include <threaded_context.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>

#include <cmath>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace qmill;
using namespace learned_rounding;
using qmill::testing::random_weight;
using qmill::testing::TestContext;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace {

using Values = std::map<std::string, std::string>;

class Context final : public qmill::testing::ThreadedContext {
 public:
  Context(const at::Tensor& weight, const Quantizer& quantizer, Scaling scaling, const Values& values, int format = 0, int threads = 1)
      : ThreadedContext(threads, {"a.weight", DType::f32, weight.sizes().vec()}, target_for(weight, quantizer, scaling, values, format)) {}

 private:
  static LayerTarget target_for(const at::Tensor& weight, const Quantizer& quantizer, Scaling scaling, const Values& values, int format) {
    LayerTarget target;
    target.format = as_writable(*builtin_formats()[static_cast<std::size_t>(format)]);
    StorageOptions storage;
    storage.scaling = scaling;
    storage.block_size = 32;
    storage.rotation.mode = Rotation::Mode::off;
    target.layout = target.format->layout({"a.weight", DType::f32, weight.sizes().vec()}, storage);
    target.options = Options(quantizer.info().options);
    for (const auto& [name, value] : values) target.options.parse("test", name, value);
    return target;
  }
};

constexpr int kInt8 = 0, kInt4 = 2;

class LearnedRounding : public ::testing::Test {
 protected:
  static std::unique_ptr<Quantizer> made(std::size_t offer) {
    return std::unique_ptr<Quantizer>(static_cast<Quantizer*>(qmill_plugin.offers[offer].create()));
  }

  const std::unique_ptr<Quantizer> original = made(0), adamw = made(1), radam = made(2);

  StoredLayer run(const at::Tensor& weight, const Values& values = {}, Scaling scaling = Scaling::row) const {
    Context context(weight, *original, scaling, values);
    return original->quantize(weight, context);
  }
};

at::Tensor decoded(const StoredLayer& layer, const StoredFormat& format, const Layout& layout, at::IntArrayRef shape) {
  std::vector<at::Tensor> tensors;
  for (const StoredTensor& tensor : layer.tensors) tensors.push_back(tensor.data);
  at::Tensor result = at::empty(shape, at::kFloat);
  format.decode_rows(tensors, layout, 0, shape[0], result.mutable_data_ptr<float>());
  return result;
}

double length(const at::Tensor& values) { return std::sqrt(values.square().sum().item<double>()); }

at::Tensor heavy_tailed(std::int64_t rows, std::int64_t columns) {
  const at::Tensor divisor = random_weight(rows, columns, at::kFloat, 12).square().add(0.1).sqrt();
  return random_weight(rows, columns, at::kFloat, 11).div(divisor).contiguous();
}

// Errors of the stored weight and of rounding to nearest, along exact directions and as a whole, in F64.
struct Ratios {
  double loss;
  double mse;
};

Ratios ratios(const Quantizer& quantizer, const at::Tensor& weight, Scaling scaling, const Values& values, std::int64_t rank,
              int format = kInt8) {
  Context context(weight, quantizer, scaling, values, format);
  const LayerTarget& target = context.target();
  const at::Tensor w = weight.to(at::kDouble);
  const at::Tensor errors =
      decoded(quantizer.quantize(weight, context), *target.format, target.layout, weight.sizes()).to(at::kDouble).sub(w);
  const CodedWeight coded = round_to_nearest(weight, target.coded().grid(), target.layout, context);
  const StoredLayer plain{target.coded().encode(coded, context.weight(), target.layout), {}};
  const at::Tensor nearest = decoded(plain, *target.format, target.layout, weight.sizes()).to(at::kDouble).sub(w);
  const auto [u, s, vt] = at::linalg_svd(w, false);
  const auto loss = [&, left = u.narrow(1, 0, rank).t(), right = vt.narrow(0, 0, rank).t()](const at::Tensor& e) {
    return length(left.mm(e).mm(right));
  };
  return {loss(errors) / loss(nearest), std::pow(length(errors) / length(nearest), 2)};
}

TEST_F(LearnedRounding, EveryVariantIsAQuantizerOfItsOwn) {
  ASSERT_EQ(qmill_plugin.offer_count, 3u);
  EXPECT_EQ(original->info().name, "learned_rounding");
  EXPECT_THAT(original->info().aliases, ElementsAre("original"));
  EXPECT_EQ(adamw->info().name, "adamw");
  EXPECT_EQ(radam->info().name, "radam");
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(made(i)->info().name, qmill_plugin.offers[i].name);
}

TEST_F(LearnedRounding, HalvesTheErrorAlongDominantDirectionsForLittleTotalError) {
  const auto model = qmill::testing::read_model(QMILL_TEST_DATA "/abacus/abacus.safetensors").tensors;
  std::map<std::string, at::Tensor> weights = {{"gaussian", random_weight(256, 384, at::kFloat, 1)}, {"heavy", heavy_tailed(320, 256)}};
  for (const char* name : {"blocks.0.attention.q.weight", "blocks.1.attention.out.weight", "blocks.2.mlp.up.weight",
                           "blocks.3.mlp.down.weight", "head.weight"})
    weights[name] = model.at(name).to(at::kFloat);
  for (const auto& [name, weight] : weights)
    for (const Scaling scaling : {Scaling::row, Scaling::tensor}) {
      SCOPED_TRACE(name + " " + std::string(scaling_name(scaling)));
      const std::int64_t rank = std::min<std::int64_t>(64, std::min(weight.size(0), weight.size(1)));
      const Ratios found = ratios(*original, weight, scaling, {{"full_matrix", "true"}}, rank);
      EXPECT_LE(found.loss, 0.5);
      EXPECT_LE(found.mse, 1.25);
      // Approximate directions are other ones where the spectrum is flat; a trained layer's are these.
      if (name.starts_with("blocks")) {
        EXPECT_LE(ratios(*original, weight, scaling, {}, rank).loss, 0.6);
      }
    }
}

TEST_F(LearnedRounding, EveryScalingAndGridGainsOrStays) {
  const at::Tensor weight = random_weight(128, 256, at::kFloat, 3);
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis})
    EXPECT_LE(ratios(*original, weight, scaling, {{"full_matrix", "true"}}, 64).loss, 0.6) << scaling_name(scaling);
  EXPECT_LE(ratios(*original, weight, Scaling::row, {{"full_matrix", "true"}}, 64, kInt4).loss, 0.6);
}

TEST_F(LearnedRounding, StatisticsAreTheFiguresOfThePlainFormula) {
  const at::Tensor weight = random_weight(96, 160, at::kFloat, 4);
  const auto statistics = run(weight, {{"full_matrix", "true"}, {"min_k", "20"}, {"top_p", "0"}}).statistics;
  const Ratios found = ratios(*original, weight, Scaling::row, {{"full_matrix", "true"}, {"min_k", "20"}, {"top_p", "0"}}, 20);
  EXPECT_EQ(statistics.at("rank"), 20);
  EXPECT_GT(statistics.at("iterations"), 1);
  EXPECT_NEAR(statistics.at("objective") / statistics.at("objective_rtn"), found.loss, 1e-3);
  EXPECT_NEAR(statistics.at("mse_ratio"), found.mse, 1e-3);
}

TEST_F(LearnedRounding, TheRankFollowsItsOptions) {
  const at::Tensor weight = random_weight(100, 120, at::kFloat, 5);
  const auto rank = [&](const Values& values) { return run(weight, values).statistics.at("rank"); };
  EXPECT_EQ(rank({}), 64);
  EXPECT_EQ(rank({{"top_p", "0.9"}}), 90);
  EXPECT_EQ(rank({{"min_k", "3"}}), 20);
  EXPECT_EQ(rank({{"max_k", "7"}}), 7);
  EXPECT_EQ(rank({{"min_k", "500"}}), 100);
}

TEST_F(LearnedRounding, TheIterationsFollowTheirOptions) {
  const at::Tensor weight = random_weight(128, 192, at::kFloat, 6);
  const auto iterations = [&](const Values& values) { return run(weight, values).statistics.at("iterations"); };
  const double usual = iterations({});
  EXPECT_EQ(iterations({{"num_iter", "3"}}), 3);
  EXPECT_EQ(iterations({{"early_stop_lr", "1"}}), 1);
  EXPECT_LT(iterations({{"early_stop_loss", "0.9"}}), usual);
  EXPECT_LT(iterations({{"early_stop_stall", "0"}}), usual);
  EXPECT_GT(iterations({{"early_stop_stall", "30"}}), usual);
}

TEST_F(LearnedRounding, StepsAndDirectionsFollowTheirOptions) {
  const at::Tensor weight = random_weight(128, 192, at::kFloat, 7);
  const auto codes = [&](const Values& values) { return run(weight, values).tensors.at(0).data; };
  const Values fixed = {{"num_iter", "25"}, {"early_stop_stall", "100"}};
  const at::Tensor usual = codes(fixed);
  const auto changes = [&](Values values) {
    values.insert(fixed.begin(), fixed.end());
    return !codes(values).equal(usual);
  };
  for (const Values& values : {Values{{"lr", "0.004"}}, Values{{"lr_schedule", "exponential"}}, Values{{"lr_schedule", "plateau"}},
                               Values{{"lr_adaptive_mode", "no-reset"}}, Values{{"lr_threshold", "0.5"}}, Values{{"lr_min", "0.008"}},
                               Values{{"full_matrix", "true"}}})
    EXPECT_TRUE(changes(values)) << values.begin()->first;
  EXPECT_FALSE(changes({{"lr_gamma", "0.5"}}));  // of another schedule
}

TEST_F(LearnedRounding, NoIterationsAreRoundingToNearest) {
  const at::Tensor weight = random_weight(40, 64, at::kFloat, 8);
  Context context(weight, *original, Scaling::row, {{"num_iter", "0"}});
  const CodedWeight nearest = round_to_nearest(weight, context.target().coded().grid(), context.target().layout, context);
  EXPECT_TRUE(original->quantize(weight, context).tensors.at(0).data.equal(nearest.codes));
}

TEST_F(LearnedRounding, WithoutCalibrationItSaysOnceWhatItFollows) {
  const at::Tensor weight = random_weight(16, 32, at::kFloat, 9);
  Context context(weight, *original, Scaling::row, {});
  original->quantize(weight, context);
  EXPECT_THAT(context.notes, ElementsAre(HasSubstr("without calibration data")));
}

TEST_F(LearnedRounding, HostileShapesAndValuesAreStoredNoWorseThanRounded) {
  at::Tensor rows_of_zeros = random_weight(20, 30, at::kFloat, 10);
  rows_of_zeros.narrow(0, 3, 5).zero_();
  for (const at::Tensor& weight :
       {at::zeros({8, 16}), random_weight(1, 1, at::kFloat, 1), random_weight(1, 33, at::kFloat, 2), random_weight(33, 1, at::kFloat, 3),
        rows_of_zeros, random_weight(30, 40, at::kFloat, 4).mul(1e30), random_weight(30, 40, at::kFloat, 4).mul(1e-33)})
    for (const Quantizer* quantizer : {original.get(), adamw.get(), radam.get()}) {
      Context context(weight, *quantizer, Scaling::row, {{"num_iter", "20"}});
      const StoredLayer stored = quantizer->quantize(weight, context);
      EXPECT_LE(stored.statistics.at("objective"), stored.statistics.at("objective_rtn")) << weight.sizes();
      const at::Tensor values = decoded(stored, *context.target().format, context.target().layout, weight.sizes());
      EXPECT_TRUE(values.isfinite().all().item<bool>()) << weight.sizes();
      EXPECT_TRUE(values.masked_select(weight.eq(0)).eq(0).all().item<bool>()) << weight.sizes();
    }
}

TEST_F(LearnedRounding, TheBytesAreTheSameForEveryNumberOfThreads) {
  const at::Tensor weight = random_weight(500, 300, at::kFloat, 13);
  for (const Quantizer* quantizer : {original.get(), adamw.get(), radam.get()}) {
    at::Tensor first;
    for (const int threads : {1, 2, 3}) {
      Context context(weight, *quantizer, Scaling::row, {{"num_iter", "12"}}, kInt8, threads);
      const at::Tensor codes = quantizer->quantize(weight, context).tensors.at(0).data;
      if (threads == 1) first = codes;
      EXPECT_TRUE(codes.equal(first)) << quantizer->info().name << " on " << threads;
    }
  }
}

TEST_F(LearnedRounding, AnInterruptedRunEnds) {
  const at::Tensor weight = random_weight(64, 64, at::kFloat, 14);
  Context context(weight, *original, Scaling::row, {});
  context.cancelled = true;
  try {
    original->quantize(weight, context);
    ADD_FAILURE() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::cancelled);
  }
}

TEST_F(LearnedRounding, SoftVariantsGoOnFromTheOriginalAndAreNeverWorse) {
  const at::Tensor weight = random_weight(96, 128, at::kFloat, 15);
  const auto start = run(weight).statistics;
  for (const Quantizer* quantizer : {adamw.get(), radam.get()}) {
    Context context(weight, *quantizer, Scaling::row, {});
    const auto found = quantizer->quantize(weight, context).statistics;
    EXPECT_LE(found.at("objective"), start.at("objective"));
    EXPECT_GT(found.at("iterations"), start.at("iterations"));
    const auto chosen = run(weight, {{"variant", quantizer->info().name}, {"num_iter", "200"}}).statistics;
    EXPECT_EQ(chosen.at("objective"), found.at("objective"));
  }
}

// Inputs with a strong common part.
at::Tensor correlated_rows(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  return random_weight(rows, columns, at::kFloat, seed)
      .add(random_weight(rows, 4, at::kFloat, seed + 1).mm(random_weight(4, columns, at::kFloat, 77)))
      .contiguous();
}

class Inputs final : public LayerCalibration {
 public:
  Inputs(at::Tensor rows, at::Tensor held_out) : rows_(std::move(rows)), held_out_(std::move(held_out)) {}

  const std::string& identity() const override { return identity_; }
  std::int64_t row_count() const override { return held_out_.defined() ? rows_.size(0) : 0; }
  at::Tensor hessian() const override { return rows_.t().mm(rows_).div(static_cast<double>(rows_.size(0))).contiguous(); }
  at::Tensor mean() const override { return rows_.mean(0); }
  at::Tensor rows() const override { return rows_; }
  at::Tensor held_out_rows() const override { return held_out_; }

 private:
  std::string identity_ = "inputs";
  at::Tensor rows_;
  at::Tensor held_out_;
};

TEST_F(LearnedRounding, WithInputsItGainsOnWhatFeedbackAloneLeaves) {
  const at::Tensor weight = random_weight(64, 96, at::kFloat, 16);
  const Inputs inputs(correlated_rows(2000, 96, 20), at::Tensor());
  const auto objective = [&](const Values& values) {
    Context context(weight, *original, Scaling::row, values);
    context.calibrated = &inputs;
    const StoredLayer stored = original->quantize(weight, context);
    const at::Tensor errors =
        decoded(stored, *context.target().format, context.target().layout, weight.sizes()).sub(weight).to(at::kDouble);
    const double plain = errors.mm(inputs.hessian().to(at::kDouble)).mul(errors).sum().item<double>() / 64;
    EXPECT_NEAR(stored.statistics.at("objective"), plain, 1e-4 * plain);
    EXPECT_LT(stored.statistics.at("objective"), stored.statistics.at("objective_rtn"));
    EXPECT_THAT(context.notes, IsEmpty());
    return plain;
  };
  EXPECT_LT(objective({}), objective({{"num_iter", "0"}}));
  EXPECT_NE(objective({{"damping", "1"}}), objective({}));
  EXPECT_NE(objective({{"scale_search", "hessian"}}), objective({}));
}

TEST_F(LearnedRounding, RowsKeptApartDecide) {
  const at::Tensor weight = random_weight(64, 96, at::kFloat, 17);
  const Inputs inputs(correlated_rows(300, 96, 30), correlated_rows(100, 96, 40));
  for (const Quantizer* quantizer : {original.get(), adamw.get(), radam.get()}) {
    const auto error = [&](const Values& values) {
      Context context(weight, *quantizer, Scaling::row, values);
      context.calibrated = &inputs;
      const auto statistics = quantizer->quantize(weight, context).statistics;
      EXPECT_LE(statistics.at("output_error"), statistics.at("output_error_rtn"));
      return statistics.at("output_error");
    };
    EXPECT_LE(error({}), error({{"num_iter", "0"}}));
  }
}

TEST_F(LearnedRounding, InputsThatWereAllZeroSayNothing) {
  const at::Tensor weight = random_weight(8, 16, at::kFloat, 18);
  const Inputs inputs(at::zeros({10, 16}), at::Tensor());
  Context context(weight, *original, Scaling::row, {});
  context.calibrated = &inputs;
  original->quantize(weight, context);
  EXPECT_THAT(context.notes, ElementsAre(HasSubstr("all zero")));
}

// What the parts do on a grid that is a table.
struct Problem {
  static Layout tiles() {
    Layout layout;
    layout.scaling = Scaling::block;
    layout.tile_rows = 16;
    layout.tile_columns = 20;
    return layout;
  }

  at::Tensor weight = random_weight(48, 80, at::kFloat, 19);
  Grid grid{-4, 3, {-1, -0.6f, -0.3f, -0.1f, 0, 0.2f, 0.5f, 1}};
  Layout layout = tiles();
  TestContext context{{}, {}};
  at::Tensor scales = tile_scales(weight, grid, layout, context).values;
  at::Tensor nearest = round_onto(weight, {scales}, grid, layout, context).codes;
  TileRounder rounder{weight, {scales}, grid, layout};

  at::Tensor errors(const at::Tensor& codes) { return all_errors(rounder, codes, context).to(at::kDouble); }
};

TEST(LearnedRoundingParts, ATableGridGainsAlongItsDirections) {
  Problem problem;
  Settings settings;
  settings.least_rank = 12;
  settings.full_matrix = true;
  const Directions directions = dominant_directions(problem.weight, settings, problem.context);
  const ProjectedRounding found = round_projected(problem.rounder, problem.nearest, directions, settings, problem.context);
  const auto loss = [&](const at::Tensor& codes) {
    return length(directions.u.to(at::kDouble).t().mm(problem.errors(codes)).mm(directions.v.to(at::kDouble)));
  };
  EXPECT_NEAR(found.loss_nearest, loss(problem.nearest), 1e-4 * found.loss_nearest);
  EXPECT_NEAR(found.loss, loss(found.codes), 1e-3 * found.loss_nearest);
  EXPECT_LT(found.loss, 0.6 * found.loss_nearest);
}

class Quadratic final : public ErrorObjective {
 public:
  explicit Quadratic(at::Tensor hessian) : hessian_(std::move(hessian)) {}
  double gradient(const at::Tensor& errors, at::Tensor& gradient) const override {
    const OneThread one_thread;
    at::mm_out(gradient, errors, hessian_);
    return errors.mul(gradient).sum().item<double>();
  }

 private:
  at::Tensor hessian_;
};

at::Tensor hessian_of(std::int64_t columns) {
  const at::Tensor rows = correlated_rows(500, columns, 50);
  return rows.t().mm(rows).div(500).contiguous();
}

TEST(LearnedRoundingParts, SoftRoundingGainsByItselfAndEachOptimizerInItsOwnWay) {
  Problem problem;
  const Quadratic objective(hessian_of(80));
  Settings settings;
  settings.iterations = 300;
  settings.schedule.rate = 3 * kUsualRate;
  std::vector<at::Tensor> codes;
  for (const Variant variant : {Variant::adamw, Variant::radam}) {
    settings.variant = variant;
    const SoftRounding found = round_softly(problem.rounder, problem.nearest, objective, settings, problem.context);
    at::Tensor gradient = at::empty({48, 80}, at::kFloat);
    EXPECT_NEAR(objective.gradient(problem.errors(found.codes).to(at::kFloat), gradient), found.value, 1e-4 * found.value);
    EXPECT_LT(found.value, found.value_start) << found.iterations << (variant == Variant::adamw ? " adamw" : " radam");
    codes.push_back(found.codes);
  }
  EXPECT_FALSE(codes[0].equal(codes[1]));
}

}  // namespace
