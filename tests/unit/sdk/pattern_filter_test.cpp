#include <qmill/pattern_filter.h>

#include <gtest/gtest.h>

using namespace qmill;

namespace pattern_filter_test {

TEST(SegmentsMatch, APatternIsARunOfWholeSegments) {
  EXPECT_TRUE(segments_match("mlp.down_proj", "visual.blocks.0.mlp.down_proj.weight"));
  EXPECT_TRUE(segments_match("visual", "visual.blocks.0.mlp.down_proj.weight"));
  EXPECT_TRUE(segments_match("weight", "visual.blocks.0.mlp.down_proj.weight"));
  EXPECT_TRUE(segments_match("a.b", "a.b"));
  EXPECT_FALSE(segments_match("mlp.weight", "visual.blocks.0.mlp.down_proj.weight"));
  EXPECT_FALSE(segments_match("down_proj.mlp", "visual.blocks.0.mlp.down_proj.weight"));
  EXPECT_FALSE(segments_match("a.b.c", "a.b"));
}

TEST(SegmentsMatch, APartOfASegmentIsNotEnough) {
  EXPECT_FALSE(segments_match("norm", "blocks.0.norm_out.weight"));
  EXPECT_FALSE(segments_match("norm", "blocks.0.final_norm.weight"));
  EXPECT_FALSE(segments_match("shared", "mlp.shared_experts.0.weight"));
  EXPECT_TRUE(segments_match("norm", "blocks.0.norm.weight"));
}

TEST(SegmentsMatch, AStarStandsForAnyCharactersOfOneSegment) {
  EXPECT_TRUE(segments_match("*norm*", "blocks.0.final_norm_2.weight"));
  EXPECT_TRUE(segments_match("norm*", "blocks.0.norm.weight"));
  EXPECT_TRUE(segments_match("blocks.*.norm", "blocks.17.norm.weight"));
  EXPECT_TRUE(segments_match("n*r*m", "norrrm"));
  EXPECT_FALSE(segments_match("blocks.*.norm", "blocks.norm.weight"));
  EXPECT_FALSE(segments_match("b*t", "blocks.weight"));
  EXPECT_FALSE(segments_match("n*rx", "norm"));
}

TEST(SegmentsMatch, ACaretTiesThePatternToTheStart) {
  EXPECT_TRUE(segments_match("^shared", "shared.weight"));
  EXPECT_FALSE(segments_match("^shared", "encoder.shared.weight"));
  EXPECT_TRUE(segments_match("^*.shared", "encoder.shared.weight"));
  EXPECT_FALSE(segments_match("^a.b", "a"));
}

TEST(SegmentsMatch, TheStartIsAlsoWhatFollowsAPrefixOfCheckpoints) {
  for (const char* prefix : {"model.diffusion_model.", "model.model.", "model.", "net.", "transformer.", "diffusion_model."}) {
    EXPECT_TRUE(segments_match("^proj_out", std::string(prefix) + "proj_out.weight")) << prefix;
    EXPECT_FALSE(segments_match("^proj_out", std::string(prefix) + "blocks.0.proj_out.weight")) << prefix;
    EXPECT_TRUE(segments_match(std::string("^") + prefix + "proj_out", std::string(prefix) + "proj_out.weight")) << prefix;
  }
  EXPECT_FALSE(segments_match("^proj_out", "other.proj_out.weight"));
}

TEST(SegmentsMatch, CaseMattersAndNothingElseIsSpecial) {
  EXPECT_FALSE(segments_match("Norm", "norm.weight"));
  EXPECT_FALSE(segments_match("n?rm", "norm.weight"));
  EXPECT_FALSE(segments_match("[n]orm", "norm.weight"));
  EXPECT_TRUE(segments_match("[n]orm", "[n]orm.weight"));
}

TEST(SegmentsMatch, EmptyPatternsAndNamesAreOneEmptySegment) {
  EXPECT_TRUE(segments_match("", ""));
  EXPECT_FALSE(segments_match("", "norm"));
  EXPECT_TRUE(segments_match("", "a..b"));
  EXPECT_TRUE(segments_match("*", ""));
  EXPECT_FALSE(segments_match("a", ""));
}

// With backtracking over every star these would not end.
TEST(SegmentsMatch, HostilePatternsEnd) {
  std::string stars;
  for (int i = 0; i < 1000; ++i) stars += "*a";
  const std::string name(5000, 'a');
  EXPECT_TRUE(segments_match(stars, name));
  EXPECT_FALSE(segments_match(stars + "*b", name));
  EXPECT_TRUE(segments_match(std::string(10'000, '*'), name));
  EXPECT_FALSE(segments_match(std::string(10'000, '*') + "b", name));
}

TensorInfo named(std::string name) { return {std::move(name), DType::bf16, {5, 7}}; }

TEST(PatternFilter, RemovingComesBeforeKeepingAndTheReasonIsThePattern) {
  const PatternFilter filter({{"t", "text", "a test"}, {"norm", "head"}, {"decoder.head", "mask"}, {}});
  EXPECT_EQ(filter.classify(named("decoder.head.weight")).treatment, Treatment::remove);
  EXPECT_EQ(filter.classify(named("decoder.head.weight")).reason, "decoder.head");
  EXPECT_EQ(filter.classify(named("encoder.head.weight")).treatment, Treatment::keep);
  EXPECT_EQ(filter.classify(named("encoder.head.weight")).reason, "head");
  EXPECT_EQ(filter.classify(named("encoder.proj.weight")).treatment, Treatment::quantize);
  EXPECT_EQ(filter.classify(named("encoder.proj.weight")).reason, "");
  EXPECT_EQ(filter.info().name, "t");
}

TEST(PatternFilter, HandsOutItsFingerprints) {
  const PatternFilter filter({{}, {"*"}, {}, {{"one", 3, {"a"}, {}, {}, false}, {"two", 1, {"b"}, {}, {}, true}}});
  ASSERT_EQ(filter.fingerprints().size(), 2u);
  EXPECT_EQ(filter.fingerprints()[1].architecture, "two");
  EXPECT_TRUE(filter.fingerprints()[1].renamed_by_readers);
  EXPECT_TRUE(PatternFilter({{}, {"*"}, {}, {}}).fingerprints().empty());
}

}  // namespace pattern_filter_test
