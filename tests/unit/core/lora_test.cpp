// What a plan with LoRAs says. What merging does to files: tests/cli/test_lora.py.
#include "core_support.h"

#include <ATen/ops/ones.h>

#include <cmath>
#include <limits>

namespace qmill {
namespace {

using testing::decision_of;
using testing::error_of;
using testing::expect_error;
using testing::Job;
using testing::NamedTensor;
using testing::random_weight;
using testing::TempDir;
using testing::write_bytes;
using testing::write_model;

TEST(Lora, AStrengthFollowsTheName) {
  const TempDir dir;
  write_bytes(dir / "b:0.5", "");
  const std::string folder = dir.path().string() + "/";
  const auto expect = [&](const std::string& text, const std::string& file, double strength) {
    const LoraToMerge lora = parse_lora_to_merge(folder + text);
    EXPECT_EQ(lora.file, folder + file) << text;
    EXPECT_EQ(lora.strength, strength) << text;
  };
  expect("a", "a", 1);
  expect("a:0.5", "a", 0.5);
  expect("a:-1e-1", "a", -0.1);
  expect("b:0.5", "b:0.5", 1);
  expect("b:0.5:2", "b:0.5", 2);
  expect("a:", "a:", 1);
  expect("a:x", "a:x", 1);
  expect("a:1x", "a:1x", 1);
  expect("a: 1", "a: 1", 1);
  expect_error(ErrorKind::usage, {"inf"}, [&] { parse_lora_to_merge(folder + "a:inf"); });
  expect_error(ErrorKind::usage, {"empty"}, [] { parse_lora_to_merge(""); });
}

struct MergeJob : Job {
  explicit MergeJob(const std::vector<NamedTensor>& lora)
      : Job({{"l.weight", random_weight(24, 32, at::kBFloat16, 5)},
             {"k.weight", random_weight(24, 32, at::kFloat, 6)},
             {"l.bias", random_weight(1, 24, at::kHalf, 7).view({24})}}) {
    write_model(dir / "lora.safetensors", lora);
    options.merge.paths = {dir / "lora.safetensors"};
    options.layers.exclude = "^k";
  }
};

TEST(Lora, APlanSaysWhichTensorsAreMerged) {
  MergeJob job({{"l.lora_A.weight", random_weight(4, 32, at::kFloat, 1)},
                {"l.lora_B.weight", random_weight(24, 4, at::kFloat, 2)},
                {"l.diff_b", at::ones({24})},
                {"k.diff", at::ones({24, 32})},
                {"x", at::ones({1})}});
  const Plan plan = job.plan();
  EXPECT_EQ(decision_of(plan, "l.weight").action, Action::quantize);
  EXPECT_EQ(decision_of(plan, "k.weight").action, Action::merge);
  EXPECT_EQ(decision_of(plan, "l.bias").action, Action::merge);
  for (const Decision& decision : plan.decisions) EXPECT_EQ(decision.merges, std::vector<std::size_t>{0}) << decision.source.name;
  EXPECT_EQ(decision_of(plan, "l.bias").outputs, std::vector{decision_of(plan, "l.bias").source});
  EXPECT_EQ(action_name(Action::merge), "merge");
  ASSERT_TRUE(plan.merge_account);
  const MergedLora& file = plan.merge_account->files.at(0);
  EXPECT_EQ(file.layers, (std::vector<std::string>{"l", "k"}));
  EXPECT_EQ(file.unmatched, std::vector<std::string>{"x"});
  EXPECT_EQ(file.kinds, (std::map<std::string, std::size_t>{{"diff", 1}, {"lora", 1}}));
  EXPECT_FALSE(plan.merge_account->dampened) << "of one file nothing is weakened";
  EXPECT_EQ(file.strength, 1);
  job.run();
  const auto stored = job.output().tensors;
  EXPECT_TRUE(stored.at("k.weight").equal(random_weight(24, 32, at::kFloat, 6).add(1)));
  EXPECT_TRUE(stored.at("l.bias").equal(random_weight(1, 24, at::kHalf, 7).view({24}).to(at::kFloat).add(1).to(at::kHalf)));
}

TEST(Lora, AnInfinityOfTheModelIsNotTheLoras) {
  MergeJob job({{"l.diff", at::ones({24, 32})}});
  at::Tensor bad = random_weight(24, 32, at::kFloat, 6);
  bad.mutable_data_ptr<float>()[3] = std::numeric_limits<float>::infinity();
  write_model(job.options.input, {{"l.weight", bad}});
  const Error error = error_of([&] { job.run(); });
  EXPECT_EQ(std::string(error.what()).find("lora.safetensors"), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("l.weight"), std::string::npos) << error.what();
}

TEST(Lora, OptionsThatContradictEachOtherAreRefused) {
  MergeJob job({{"l.diff", at::ones({24, 32})}});
  job.options.merge.strengths = {1, 2};
  expect_error(ErrorKind::usage, {"1 LoRAs", "2 strengths"}, [&] { job.plan(); });
  job.options.merge.strengths = {std::nan("")};
  expect_error(ErrorKind::usage, {"lora.safetensors"}, [&] { job.plan(); });
  job.options.merge.strengths = {};
  job.options.merge.scale = std::numeric_limits<double>::infinity();
  expect_error(ErrorKind::usage, {"scale"}, [&] { job.plan(); });
}

TEST(Lora, TheOutputMayNotBeALora) {
  MergeJob job({{"l.diff", at::ones({24, 32})}});
  job.options.output = job.options.merge.paths[0];
  job.options.run.overwrite = true;
  expect_error(ErrorKind::usage, {"same file"}, [&] { job.run(); });
}

}  // namespace
}  // namespace qmill
