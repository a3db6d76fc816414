#include <expect_error.h>

#include <qmill/options.h>

#include <gmock/gmock.h>

using namespace qmill;
using qmill::testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace options_test {

OptionSpec spec(std::string name, OptionValue initial) {
  OptionSpec spec;
  spec.name = std::move(name);
  spec.initial = std::move(initial);
  return spec;
}

std::vector<OptionSpec> schema() {
  OptionSpec order = spec("act-order", false);
  OptionSpec rounds = spec("rounds", std::int64_t{8});
  rounds.at_least = 1;
  rounds.at_most = 64;
  OptionSpec damping = spec("damping", 0.01);
  damping.at_least = 0;
  OptionSpec mode = spec("mode", std::string("fast"));
  mode.choices = {"fast", "exact"};
  return {order, rounds, damping, mode, spec("label", std::string())};
}

TEST(Options, EveryOptionStartsAtItsDefault) {
  const Options options(schema());
  EXPECT_FALSE(options.boolean("act-order"));
  EXPECT_EQ(options.integer("rounds"), 8);
  EXPECT_EQ(options.real("damping"), 0.01);
  EXPECT_EQ(options.text("mode"), "fast");
  EXPECT_EQ(options.text("label"), "");
  EXPECT_THAT(options.changed(), IsEmpty());
}

TEST(Options, ATextIsParsedAsTheTypeOfTheOption) {
  Options options(schema());
  options.parse("gptq", "act_order", "on");
  options.parse("gptq", "rounds", "64");
  options.parse("gptq", "damping", "2.5e-3");
  options.parse("gptq", "mode", "exact");
  options.parse("gptq", "label", "64");
  EXPECT_TRUE(options.boolean("act-order"));
  EXPECT_EQ(options.integer("rounds"), 64);
  EXPECT_EQ(options.real("damping"), 2.5e-3);
  EXPECT_EQ(options.text("mode"), "exact");
  EXPECT_EQ(options.text("label"), "64");
}

TEST(Options, TruthHasFourSpellings) {
  Options options(schema());
  for (const char* text : {"true", "on", "yes", "1"}) {
    options.parse("gptq", "act-order", text);
    EXPECT_TRUE(options.boolean("act-order")) << text;
  }
  for (const char* text : {"false", "off", "no", "0"}) {
    options.parse("gptq", "act-order", text);
    EXPECT_FALSE(options.boolean("act-order")) << text;
  }
}

TEST(Options, ATextThatIsNotOfTheTypeOrRangeIsAUsageErrorAndChangesNothing) {
  for (const auto& [name, text] : std::vector<std::pair<const char*, const char*>>{
           {"act-order", ""},       {"act-order", "TRUE"}, {"act-order", "2"}, {"rounds", ""},      {"rounds", "0"},
           {"rounds", "65"},        {"rounds", "8.0"},     {"rounds", " 8"},   {"rounds", "8x"},    {"rounds", "99999999999999999999"},
           {"rounds", "-1"},        {"damping", "nan"},    {"damping", "inf"}, {"damping", "-0.1"}, {"damping", "1e999"},
           {"damping", "a number"}, {"damping", "0.1 "},   {"mode", "exac"},   {"mode", ""},        {"mode", "Fast"}}) {
    Options options(schema());
    const Error error = error_of([&] { options.parse("gptq", name, text); });
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_THAT(error.message(), HasSubstr("gptq option '" + std::string(name) + "' is '" + text + "'; allowed: "));
    EXPECT_THAT(options.changed(), IsEmpty()) << name << ' ' << text;
  }
}

TEST(Options, TheErrorSaysWhatIsAllowed) {
  Options options(schema());
  EXPECT_THAT(error_of([&] { options.parse("gptq", "rounds", "0"); }).message(), HasSubstr("an integer from 1 to 64"));
  EXPECT_THAT(error_of([&] { options.parse("gptq", "damping", "-1"); }).message(), HasSubstr("a number of at least 0"));
  EXPECT_THAT(error_of([&] { options.parse("gptq", "mode", "slow"); }).message(), HasSubstr("one of fast, exact"));
  EXPECT_THAT(error_of([&] { options.parse("gptq", "act-order", "perhaps"); }).message(), HasSubstr("true or false"));
}

TEST(Options, AValueOfAnotherTypeIsAUsageErrorButAnIntegerIsANumber) {
  Options options(schema());
  options.set("gptq", "damping", std::int64_t{1});
  EXPECT_EQ(options.real("damping"), 1.0);
  for (const auto& [name, value] : std::vector<std::pair<const char*, OptionValue>>{{"rounds", 8.0},
                                                                                    {"rounds", true},
                                                                                    {"rounds", std::string("8")},
                                                                                    {"act-order", std::int64_t{1}},
                                                                                    {"mode", false},
                                                                                    {"damping", true}})
    EXPECT_EQ(error_of([&] { options.set("gptq", name, value); }).kind(), ErrorKind::usage) << name;
}

TEST(Options, AnUnknownNameIsAUsageErrorThatNamesTheNearest) {
  Options options(schema());
  const Error error = error_of([&] { options.parse("gptq", "dampning", "1"); });
  EXPECT_EQ(error.kind(), ErrorKind::usage);
  EXPECT_THAT(error.message(), HasSubstr("no gptq option 'dampning'; did you mean 'damping'?"));
  EXPECT_THAT(error.message(), HasSubstr("act-order, damping, label, mode, rounds"));
}

TEST(Options, OnlyWhatDiffersFromItsDefaultIsChanged) {
  Options options(schema());
  options.parse("gptq", "rounds", "8");
  options.parse("gptq", "act_order", "yes");
  EXPECT_EQ(options.changed(), (std::map<std::string, OptionValue>{{"act-order", true}}));
}

TEST(Options, ReadingWhatTheSchemaDoesNotSayIsADefect) {
  const Options options(schema());
  EXPECT_EQ(error_of([&] { options.boolean("rounds"); }).kind(), ErrorKind::internal);
  EXPECT_EQ(error_of([&] { options.integer("damping"); }).kind(), ErrorKind::internal);
  EXPECT_EQ(error_of([&] { options.text("nothing"); }).kind(), ErrorKind::internal);
}

TEST(Options, ASchemaThatContradictsItselfIsThePluginsError) {
  OptionSpec rounds = spec("rounds", std::int64_t{0});
  rounds.at_least = 1;
  OptionSpec mode = spec("mode", std::string("slow"));
  mode.choices = {"fast", "exact"};
  for (const std::vector<OptionSpec>& bad : {std::vector<OptionSpec>{rounds}, {mode}, {spec("a-b", true), spec("a_b", true)}})
    EXPECT_EQ(error_of([&] { Options options(bad); }).kind(), ErrorKind::plugin);
}

TEST(OptionText, ValuesAreWrittenAsAPersonWouldTypeThem) {
  EXPECT_EQ(option_text(true), "true");
  EXPECT_EQ(option_text(std::int64_t{-7}), "-7");
  EXPECT_EQ(option_text(0.01), "0.01");
  EXPECT_EQ(option_text(std::string("fast")), "fast");
}

TEST(Options, ATextMayBeAWordOrANumberWithinBounds) {
  qmill::OptionSpec spec{"damping", std::string("auto"), "", 0};
  spec.choices = {"auto"};
  spec.takes_numbers = true;
  EXPECT_EQ(spec.allowed(), "auto, or a number of at least 0");
  qmill::Options options({spec});
  for (const char* allowed : {"auto", "0", "0.05", "1e-3"}) {
    options.parse("gptq", "damping", allowed);
    EXPECT_EQ(options.text("damping"), allowed);
  }
  for (const char* refused : {"", "-1", "often", "nan", "inf", "0.1x"}) EXPECT_THROW(options.parse("gptq", "damping", refused), qmill::Error);
  EXPECT_EQ(options.text("damping"), "1e-3");
}

}  // namespace options_test
