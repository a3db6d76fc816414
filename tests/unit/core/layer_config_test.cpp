#include <qmill/core/layer_config.h>

#include "core_support.h"
#include "io/regex.h"

namespace qmill {
namespace {

using testing::expect_error;

std::string chosen(const char* json, std::string_view base, bool whole = false) {
  const LayerConfig config = parse_layer_config(json);
  const LayerPattern* pattern = most_specific(config, base, whole);
  return pattern == nullptr ? "none" : pattern->text;
}

void expect_refused(std::string_view json, std::initializer_list<std::string_view> parts,
                    std::source_location where = std::source_location::current()) {
  expect_error(
      ErrorKind::input, parts, [&] { parse_layer_config(json); }, where);
}

TEST(LayerConfig, BothShapesMeanTheSame) {
  for (const char* json : {R"({"layer_patterns": {"attn": {"format": "int8"}, "mlp": {"skip": true}}})",
                           R"({"attn": {"format": "int8"}, "mlp": {"skip": true}})"}) {
    const LayerConfig config = parse_layer_config(json);
    ASSERT_EQ(config.patterns.size(), 2u);
    EXPECT_EQ(config.patterns[0].text, "attn");
    EXPECT_EQ(config.patterns[0].choice.format, "int8");
    EXPECT_FALSE(config.patterns[0].choice.skip);
    EXPECT_TRUE(config.patterns[1].choice.skip);
    EXPECT_FALSE(config.fallback);
    EXPECT_TRUE(config.exclusions.empty());
  }
}

TEST(LayerConfig, EveryKeyIsRead) {
  const LayerConfig config =
      parse_layer_config(R"({"a": {"format": "int8_blockwise", "skip": false, "block_size": 64, "scaling_mode": "block", "simple": false,
      "full_precision_matrix_mult": true, "optimizer": "rtn", "options": {"yes": true, "count": 3, "rate": 0.5, "word": "fast"}}})");
  const LayerChoice& choice = config.patterns.at(0).choice;
  EXPECT_EQ(choice.format, "int8_blockwise");
  EXPECT_EQ(choice.block_size, 64);
  EXPECT_EQ(choice.scaling, Scaling::block);
  EXPECT_EQ(choice.full_precision_matrix_mult, true);
  EXPECT_EQ(choice.quantizer, "rtn");
  EXPECT_EQ(choice.options.at("yes"), OptionValue(true));
  EXPECT_EQ(choice.options.at("count"), OptionValue(std::int64_t{3}));
  EXPECT_EQ(choice.options.at("rate"), OptionValue(0.5));
  EXPECT_EQ(choice.options.at("word"), OptionValue(std::string("fast")));
}

TEST(LayerConfig, QuantizerIsAnotherWordForOptimizer) {
  EXPECT_EQ(parse_layer_config(R"({"a": {"quantizer": "rtn"}})").patterns.at(0).choice.quantizer, "rtn");
}

TEST(LayerConfig, HyphensAndUnderscoresInKeysAreTheSame) {
  EXPECT_EQ(parse_layer_config(R"({"a": {"scaling-mode": "axis"}})").patterns.at(0).choice.scaling, Scaling::axis);
}

TEST(LayerConfig, DefaultAndExclusionsStandInOrBesideThePatterns) {
  for (const char* json : {R"({"layer_patterns": {"a": {}}, "_default": {"simple": true}, "_exclusions": ["norm", "head"]})",
                           R"({"layer_patterns": {"a": {}, "_default": {"simple": true}, "_exclusions": ["norm", "head"]}})",
                           R"({"a": {}, "_default": {"simple": true}, "_exclusions": ["norm", "head"]})"}) {
    const LayerConfig config = parse_layer_config(json);
    ASSERT_TRUE(config.fallback) << json;
    EXPECT_TRUE(config.fallback->simple);
    ASSERT_EQ(config.exclusions.size(), 2u);
    EXPECT_EQ(config.exclusions[1].text, "head");
    EXPECT_TRUE(config.exclusions[1].choice.skip);
  }
}

TEST(LayerConfig, TwoDefaultsAreAnError) {
  expect_refused(R"({"layer_patterns": {"a": {}, "_default": {"skip": true}}, "_default": {"simple": true}})", {"_default"});
}

TEST(LayerConfig, KeysWithAnUnderscoreAreComments) {
  const LayerConfig config = parse_layer_config(R"({"_note": "anything", "a": {"_shape": [1, 2], "format": "int8"}})");
  ASSERT_EQ(config.patterns.size(), 1u);
  EXPECT_EQ(config.patterns[0].choice.format, "int8");
}

TEST(LayerConfig, AnUnknownKeyIsNamedWithItsEntryAndWhatIsAllowed) {
  expect_refused(R"({"attn": {"fromat": "int8"}})",
                 {"entry 'attn'", "'fromat'", "did you mean 'format'", "block_size", "scaling_mode", "optimizer", "options"});
  expect_refused(R"({"_default": {"nonsense": 1}})", {"entry '_default'", "'nonsense'", "known:"});
}

TEST(LayerConfig, AWrongValueIsNamedWithItsEntryAndWhatIsAllowed) {
  expect_refused(R"({"a": {"skip": "yes"}})", {"entry 'a'", "'skip'", "\"yes\"", "true or false"});
  expect_refused(R"({"a": {"simple": 1}})", {"entry 'a'", "'simple'", "true or false"});
  expect_refused(R"({"a": {"full_precision_matrix_mult": null}})", {"entry 'a'", "true or false"});
  expect_refused(R"({"a": {"format": 8}})", {"entry 'a'", "'format'", "8"});
  expect_refused(R"({"a": {"format": ""}})", {"entry 'a'", "'format'"});
  expect_refused(R"({"a": {"optimizer": []}})", {"entry 'a'", "'optimizer'"});
  expect_refused(R"({"a": {"scaling_mode": "column"}})", {"entry 'a'", "column", "tensor, row, axis, block"});
  expect_refused(R"({"a": {"scaling_mode": true}})", {"entry 'a'", "tensor, row, axis, block"});
  expect_refused(R"({"a": {"options": [1]}})", {"entry 'a'", "'options'", "object"});
  expect_refused(R"({"a": {"options": {"x": [1]}}})", {"entry 'a'", "'x'"});
  expect_refused(R"({"_exclusions": "norm"})", {"_exclusions", "list of patterns"});
  expect_refused(R"({"_exclusions": [1]})", {"_exclusions", "1"});
  expect_refused(R"({"layer_patterns": []})", {"layer_patterns", "object"});
}

TEST(LayerConfig, ABlockSizeIsAPositiveInteger) {
  for (const char* value : {"0", "-64", "1.5", "\"64\"", "18446744073709551615", "null", "[64]"})
    expect_refused(std::string(R"({"a": {"block_size": )") + value + "}}", {"entry 'a'", "'block_size'", "at least 1"});
}

TEST(LayerConfig, ANumberBeyondEveryTypeIsAnError) { expect_refused(R"({"a": {"block_size": 1e999}})", {"a number that is too large"}); }

TEST(LayerConfig, SimpleWithAnotherOptimizerIsAContradiction) {
  expect_refused(R"({"a": {"simple": true, "optimizer": "fp16"}})", {"entry 'a'", "'simple'", "fp16"});
  EXPECT_NO_THROW(parse_layer_config(R"({"a": {"simple": true, "optimizer": "rtn"}})"));
}

TEST(LayerConfig, OptimizerAndQuantizerTogetherAreAnError) {
  expect_refused(R"({"a": {"optimizer": "rtn", "quantizer": "rtn"}})", {"entry 'a'", "give one"});
}

TEST(LayerConfig, AKeyThatIsThereTwiceIsAnError) {
  expect_refused(R"({"attn": {"skip": true}, "attn": {"skip": false}})", {"'attn'", "twice"});
  expect_refused(R"({"a": {"skip": true, "skip": false}})", {"'skip'", "twice"});
  EXPECT_NO_THROW(parse_layer_config(R"({"a": {"skip": true}, "b": {"skip": false}})"));  // one each
}

TEST(LayerConfig, WhatIsNotAnObjectIsAnError) {
  for (const char* json : {"[]", "1", "null", "true", "\"text\""}) expect_refused(json, {"an object"});
  for (const char* json : {R"({"a": 1})", R"({"a": null})", R"({"a": "int8"})", R"({"a": ["int8"]})"})
    expect_refused(json, {"entry 'a'", "an object"});
}

TEST(LayerConfig, WhatIsNotJsonIsAnErrorWithItsPlace) {
  for (const char* json :
       {"", " ", "not json", "{'a': 1}", "{\"a\": {}", "{\"a\": {},}", "{} {}", "\xff\xfe", "{\"a\xff\": {}}", "{\"a\": {\"skip\": tru"})
    expect_refused(json, {"JSON at byte"});
}

TEST(LayerConfig, EveryTruncationOfAValidFileIsAnError) {
  const std::string_view json = R"({"layer_patterns": {"attn\\.q": {"format": "int8", "block_size": 64}}, "_exclusions": ["x"]})";
  ASSERT_NO_THROW(parse_layer_config(json));
  for (std::size_t length = 0; length < json.size(); ++length) EXPECT_THROW(parse_layer_config(json.substr(0, length)), Error) << length;
}

TEST(LayerConfig, DeepNestingIsAnErrorAndNotACrash) {
  expect_refused(std::string(1'000'000, '['), {"nested"});
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  expect_refused(objects, {"nested"});
}

TEST(LayerConfig, APatternThatIsNoRegexIsNamed) {
  expect_refused(R"({"(": {"skip": true}})", {"entry '('", "not a regular expression"});
  expect_refused(R"({"_exclusions": ["["]})", {"_exclusions", "'['"});
}

TEST(LayerConfig, PatternsBesideLayerPatternsAreAnError) {
  expect_refused(R"({"layer_patterns": {"a": {}}, "b": {}})", {"'b'", "layer_patterns"});
}

TEST(LayerConfig, TheFileIsNamedInErrors) {
  const testing::TempDir dir;
  testing::write_bytes(dir / "layers.json", R"({"a": {"skip": 1}})");
  expect_error(ErrorKind::input, {"layers.json", "entry 'a'"}, [&] { load_layer_config(dir / "layers.json"); });
  expect_error(ErrorKind::io, {"missing.json"}, [&] { load_layer_config(dir / "missing.json"); });
  EXPECT_THROW(load_layer_config(dir.path()), Error);
}

TEST(LayerConfig, MoreLiteralCharactersWin) {
  const char* json = R"({"attn": {}, "blocks\\.\\d+\\.attn": {}, "a": {}})";
  EXPECT_EQ(chosen(json, "blocks.3.attn"), "blocks\\.\\d+\\.attn");
  EXPECT_EQ(chosen(json, "head.attn"), "attn");
  EXPECT_EQ(chosen(json, "mlp"), "none");
}

TEST(LayerConfig, OfEquallySpecificPatternsTheEarlierInTheFileWins) {
  EXPECT_EQ(chosen(R"({"z_b": {}, "a_z": {}})", "a_z_b"), "z_b");
  EXPECT_EQ(chosen(R"({"a_z": {}, "z_b": {}})", "a_z_b"), "a_z");
}

TEST(LayerConfig, WildcardsDoNotMakeAPatternSpecific) {
  EXPECT_EQ(chosen(R"({"b.................": {}, "bl": {}})", "blocks.0.attn.to_q.lin"), "bl");
}

TEST(LayerConfig, ExclusionsWinOverTheMostSpecificPattern) {
  const char* json = R"({"blocks.0.attn.to_q": {}, "_exclusions": ["attn"]})";
  const LayerConfig config = parse_layer_config(json);
  const LayerPattern* pattern = most_specific(config, "blocks.0.attn.to_q", false);
  ASSERT_NE(pattern, nullptr);
  EXPECT_EQ(pattern->text, "attn");
  EXPECT_TRUE(pattern->choice.skip);
}

TEST(LayerConfig, FullMatchNeedsTheWholeName) {
  const char* json = R"({"attn": {}, ".*mlp": {}, "_exclusions": ["norm"]})";
  EXPECT_EQ(chosen(json, "blocks.attn", true), "none");
  EXPECT_EQ(chosen(json, "blocks.attn", false), "attn");
  EXPECT_EQ(chosen(json, "blocks.mlp", true), ".*mlp");
  EXPECT_EQ(chosen(json, "a.norm", true), "none");
  EXPECT_EQ(chosen(json, "norm", true), "norm");
}

TEST(LayerConfig, ALongAlternativeThatNeedNotMatchIsNotSpecific) {
  EXPECT_EQ(chosen(R"({"a_very_long_alternative|q": {}, "to_q": {}})", "attn.to_q"), "to_q");
}

}  // namespace
}  // namespace qmill
