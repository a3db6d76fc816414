// The model really computes, and INT8 and INT4 leave it nearly as good.
#include "exercises.h"
#include "model.h"

#include "temp_dir.h"
#include "test_host.h"

#include <qmill/core/convert.h>

#include <gmock/gmock.h>

#include <set>

namespace abacus {
namespace {

using qmill::testing::host;

const std::filesystem::path kData = std::filesystem::path(QMILL_TEST_DATA) / "abacus";
constexpr std::size_t kHeads = 6;

Score score_of(const std::filesystem::path& model) {
  return Model(load_weights(host(), model), kHeads).evaluate(read_exercises(kData / "heldout.txt"));
}

std::filesystem::path convert(const qmill::testing::TempDir& folder, const std::string& format) {
  qmill::ConvertOptions options;
  options.input = kData / "abacus.safetensors";
  options.output = folder / (format + ".safetensors");
  options.target.format = format;
  options.run.sync = false;
  const auto source = host().open(options.input);
  qmill::run_plan(*source, qmill::make_plan(host(), *source, options));
  return options.output;
}

TEST(Abacus, AnswersExercisesThatItNeverSaw) {
  const Score score = score_of(kData / "abacus.safetensors");
  EXPECT_GE(score.share(), 0.97);
  EXPECT_LT(score.loss, 0.02);
  EXPECT_EQ(score.exercises, 2000u);
}

TEST(Abacus, LosesAtMostHalfAPointOfRightAnswersAtInt8) {
  const qmill::testing::TempDir folder;
  const double before = score_of(kData / "abacus.safetensors").share();
  EXPECT_GE(score_of(convert(folder, "int8")).share(), before - 0.005);
}

TEST(Abacus, LosesAtMostTwoPointsOfRightAnswersAtInt4) {
  const qmill::testing::TempDir folder;
  const double before = score_of(kData / "abacus.safetensors").share();
  EXPECT_GE(score_of(convert(folder, "int4")).share(), before - 0.02);
}

TEST(Abacus, AnswersAsBeforeAtFp16) {
  const qmill::testing::TempDir folder;
  const Score before = score_of(kData / "abacus.safetensors");
  const Score after = score_of(convert(folder, "fp16"));
  EXPECT_EQ(after.right, before.right);
  EXPECT_NEAR(after.loss, before.loss, 1e-4);
}

TEST(Abacus, ANoisyModelScoresLower) {
  Weights weights = load_weights(host(), kData / "abacus.safetensors");
  weights["head.weight"] = weights["head.weight"].roll(1, 0);
  EXPECT_LT(Model(weights, kHeads).evaluate(read_exercises(kData / "heldout.txt")).share(), 0.5);
}

TEST(Abacus, DivergesFromItselfByNothingAndFromItsInt4SelfByMoreThanFromItsInt8Self) {
  const qmill::testing::TempDir folder;
  const std::vector<std::string> exercises = read_exercises(kData / "heldout.txt");
  const Model original(load_weights(host(), kData / "abacus.safetensors"), kHeads);
  const auto from = [&](const std::string& format) {
    return divergence(original, Model(load_weights(host(), convert(folder, format)), kHeads), exercises);
  };
  EXPECT_EQ(divergence(original, original, exercises), 0);
  const double int8 = from("int8");
  EXPECT_GT(int8, 0);
  EXPECT_GT(from("int4"), 10 * int8);
}

TEST(Abacus, HeldOutExercisesAreCorrectAndNeverAmongTheTrainingOnes) {
  const std::vector<std::string> held_out = read_exercises(kData / "heldout.txt");
  for (const std::string& exercise : held_out) {
    const int a = std::stoi(exercise.substr(0, 3));
    const int b = std::stoi(exercise.substr(4, 3));
    EXPECT_TRUE(is_held_out(exercise[3], a, b)) << exercise;
    EXPECT_EQ(write_exercise(exercise[3], a, b), exercise);
  }
  const std::set<std::string> unseen(held_out.begin(), held_out.end());
  for (const std::string& exercise : training_exercises(20000, 7)) EXPECT_FALSE(unseen.contains(exercise)) << exercise;
}

TEST(Abacus, CapturesTheInputRowsOfEveryLinearLayer) {
  const Weights weights = load_weights(host(), kData / "abacus.safetensors");
  const auto inputs = capture_inputs(Model(weights, kHeads), training_exercises(10, 1), 64);
  EXPECT_EQ(inputs.size(), 4u * 6 + 1);
  for (const auto& [layer, rows] : inputs) {
    EXPECT_EQ(rows.size(0), 64) << layer;
    EXPECT_EQ(rows.size(1), weights.at(layer + ".weight").size(1)) << layer;
    EXPECT_GT(rows.abs().max().item<float>(), 0) << layer;
  }
}

}  // namespace
}  // namespace abacus
