#include <qmill/core/quality.h>

#include <gtest/gtest.h>

#include <cmath>

namespace qmill {
namespace {

LayerQuality judged(const char* name, std::optional<double> sqnr, std::optional<double> output, std::optional<double> rounding) {
  LayerQuality quality{name, "int8_tensorwise", "int8 row", 0.1, sqnr, 1};
  quality.output_error = output;
  quality.rounding_output_error = rounding;
  quality.output_rows = output ? 40 : 0;
  return quality;
}

TEST(Quality, LayersWithAYardstickAreJudgedByTheirOutputs) {
  EXPECT_FALSE(is_below(judged("calibrated", 10.0, 0.1, 0.1), 30)) << "10 dB of the weights do not matter";
  EXPECT_FALSE(is_below(judged("within the tolerance", 10.0, 0.1019, 0.1), 30));
  EXPECT_TRUE(is_below(judged("worse", 50.0, 0.1021, 0.1), 30));
  EXPECT_TRUE(is_below(judged("NaN", 50.0, std::nan(""), 0.1), 30));
  EXPECT_FALSE(is_below(judged("exact", std::nullopt, 0.0, 0.0), 30));
  EXPECT_TRUE(is_below(judged("without a yardstick", 29.0, 0.1, std::nullopt), 30));
  EXPECT_FALSE(is_below(judged("without a yardstick", 31.0, 0.1, std::nullopt), 30));
  EXPECT_EQ(judgment(judged("", 1.0, 0.1, 0.1)), Judgment::outputs);
  EXPECT_EQ(judgment(judged("", 1.0, 0.1, std::nullopt)), Judgment::weights);
}

TEST(Quality, TheBoundOfARunIsAboutOutputsWhereTheyAreKnown) {
  EXPECT_DOUBLE_EQ(*signal_to_noise_db(judged("", 10.0, 0.01, 0.01)), 40);
  EXPECT_DOUBLE_EQ(*signal_to_noise_db(judged("", 10.0, std::nullopt, std::nullopt)), 10);
  EXPECT_FALSE(signal_to_noise_db(judged("", 10.0, 0.0, 0.0)));
}

TEST(Quality, TheSummaryNamesTheLayerThatIsWorstBesidePlainRounding) {
  const std::vector<LayerQuality> layers = {judged("a", 40.0, 0.1, 0.2), judged("b", 20.0, 0.03, 0.02), judged("c", 25.0, {}, {}),
                                            judged("d", 50.0, 0.5, {})};
  const QualitySummary summary = summarize(layers, 30);
  EXPECT_EQ(summary.judged_by_outputs, 2u);
  EXPECT_EQ(summary.below_by_outputs, 1u);
  EXPECT_EQ(summary.below_threshold, 2u);
  EXPECT_DOUBLE_EQ(*summary.mean_output_error, 0.21);
  EXPECT_DOUBLE_EQ(*summary.mean_rounding_output_error, 0.11);
  EXPECT_DOUBLE_EQ(*summary.output_vs_rounding, 0.13 / 0.22);
  EXPECT_EQ(summary.worst_output->name, "b");
  EXPECT_EQ(summary.worst->name, "b");
  const std::vector<LayerQuality> with_nan = {judged("n", 40.0, std::nan(""), 0.2), judged("b", 20.0, 9.0, 0.02)};
  EXPECT_EQ(summarize(with_nan, 30).worst_output->name, "n");
}

TEST(Quality, TheReportHasColumnsForOutputsOnlyWhenThereAreAny) {
  const std::string plain = quality_report_text({judged("a", 40.0, {}, {})}, 30);
  EXPECT_EQ(plain.find("Output"), std::string::npos);
  EXPECT_EQ(plain.find("utputs"), std::string::npos);
  EXPECT_NE(plain.find("\n" + std::string(88, '-') + "\n"), std::string::npos);

  const std::string text = quality_report_text({judged("a", 40.0, 0.0125, 0.025), judged("b", 20.0, {}, {})}, 30);
  EXPECT_NE(text.find("Max Error  | Output Err | vs rtn"), std::string::npos) << text;
  EXPECT_NE(text.find("| 1.0000     | 0.012500   | 50.0 %\n"), std::string::npos) << text;
  EXPECT_NE(text.find("| 1.0000     | -          | -\n"), std::string::npos) << text;
  EXPECT_NE(text.find("Mean Output Error: 0.012500 (50.0 % of plain rounding's)"), std::string::npos) << text;
  EXPECT_NE(text.find("judged by their outputs, worse than plain rounding: 0 / 1"), std::string::npos) << text;
  EXPECT_NE(text.find("Layers below 30.0 dB: 1 / 1"), std::string::npos) << text;
}

}  // namespace
}  // namespace qmill
