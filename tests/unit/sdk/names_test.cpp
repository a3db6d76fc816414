#include <qmill/names.h>

#include <gtest/gtest.h>

#include <set>

using namespace qmill;

namespace names_test {

TEST(Names, DashAndUnderscoreAreTheSame) {
  EXPECT_EQ(canonical_name("quip-seed-2"), "quip_seed_2");
  EXPECT_TRUE(same_name("learned-rounding", "learned_rounding"));
  EXPECT_FALSE(same_name("Quip", "quip"));
  EXPECT_FALSE(same_name("quip", "quip "));
}

TEST(NearestName, ASlipFindsTheName) {
  const std::vector<std::string> known = {"fp16", "gptq", "learned-rounding", "quip", "rtn"};
  EXPECT_EQ(nearest_name("qiup", known), "quip");
  EXPECT_EQ(nearest_name("gtpq", known), "gptq");
  EXPECT_EQ(nearest_name("fp_16", known), "fp16");
  EXPECT_EQ(nearest_name("rt", known), "rtn");
  EXPECT_EQ(nearest_name("learned_rundin", known), "learned-rounding");
  EXPECT_EQ(nearest_name("quip", known), "quip");
}

TEST(NearestName, WhatIsNoSlipFindsNothing) {
  const std::vector<std::string> known = {"fp16", "gptq", "quip"};
  EXPECT_EQ(nearest_name("awq", known), "");
  EXPECT_EQ(nearest_name("", known), "");
  EXPECT_EQ(nearest_name("quip", {}), "");
  EXPECT_EQ(nearest_name(std::string(1'000'000, 'q'), known), "");
  EXPECT_EQ(nearest_name("quip", std::vector<std::string>{std::string(1'000'000, 'q')}), "");
}

TEST(UnknownNameMessage, ItNamesTheNearestAndAllThatAreKnown) {
  EXPECT_EQ(unknown_name_message("quantizer", "qiup", {"quip", "fp16", "gptq", "fp16"}),
            "no quantizer 'qiup'; did you mean 'quip'? (known: fp16, gptq, quip)");
  EXPECT_EQ(unknown_name_message("quantizer", "awq", {"rtn"}), "no quantizer 'awq' (known: rtn)");
  EXPECT_EQ(unknown_name_message("quantizer", "awq", {}), "no quantizer 'awq' (none is known)");
}

TEST(LayerBase, OnlyATrailingWeightIsTaken) {
  EXPECT_EQ(layer_base("a.weight.b.weight"), "a.weight.b");
  EXPECT_EQ(layer_base("a.weights"), "a.weights");
  EXPECT_EQ(layer_base("aweight"), "aweight");
  EXPECT_EQ(layer_base("weight"), "weight");
  EXPECT_EQ(layer_base(".weight"), "");
  EXPECT_EQ(layer_base(""), "");
}

// Files were written with these.
TEST(SeedFor, TheSeedsNeverChange) {
  EXPECT_EQ(seed_for(0, ""), 0xf52a15e9a9b5e89bu);
  EXPECT_EQ(seed_for(42, "model.blocks.0.attn.qkv.weight"), 0x76d68dfffba85fedu);
}

TEST(SeedFor, EverySeedAndNameHasItsOwn) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (int layer = 0; layer < 100; ++layer) seeds.insert(seed_for(seed, "blocks." + std::to_string(layer) + ".weight"));
  EXPECT_EQ(seeds.size(), 1000u);
}

}  // namespace names_test
