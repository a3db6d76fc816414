#include <qmill/error.h>

#include <gmock/gmock.h>

using namespace qmill;
using ::testing::ElementsAre;

namespace error_test {

TEST(Error, TheLineIsTheMessageAndTheAdvice) {
  EXPECT_STREQ(Error(ErrorKind::input, "it has 3 bytes").what(), "it has 3 bytes");
  EXPECT_STREQ(Error(ErrorKind::input, "it has 3 bytes", "get it again").what(), "it has 3 bytes; get it again");
}

TEST(Error, ContextsStandFromTheOutermostToTheInnermost) {
  Error error(ErrorKind::numeric, "it is not finite", "repair it");
  error.in("tensor 'a.weight'").in("'model.safetensors'");
  EXPECT_STREQ(error.what(), "'model.safetensors': tensor 'a.weight': it is not finite; repair it");
  EXPECT_THAT(error.contexts(), ElementsAre("tensor 'a.weight'", "'model.safetensors'"));
  EXPECT_EQ(error.message(), "it is not finite");
  EXPECT_EQ(error.advice(), "repair it");
}

TEST(Error, ItIsCaughtByTypeWithWhatWasAddedOnTheWay) {
  try {
    try {
      throw Error(ErrorKind::io, "no space is left");
    } catch (Error& error) {
      throw error.in("'out.safetensors'");
    }
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "'out.safetensors': no space is left");
    EXPECT_EQ(dynamic_cast<const Error&>(error).kind(), ErrorKind::io);
  }
}

TEST(Error, ACopyKeepsItsOwnLine) {
  Error error(ErrorKind::io, "no space is left");
  const Error copy = error;
  error.in("'out'");
  EXPECT_STREQ(copy.what(), "no space is left");
}

TEST(Error, EveryKindHasItsName) {
  EXPECT_EQ(error_kind_name(ErrorKind::usage), "usage");
  EXPECT_EQ(error_kind_name(ErrorKind::input), "input");
  EXPECT_EQ(error_kind_name(ErrorKind::unsupported), "unsupported");
  EXPECT_EQ(error_kind_name(ErrorKind::numeric), "numeric");
  EXPECT_EQ(error_kind_name(ErrorKind::io), "io");
  EXPECT_EQ(error_kind_name(ErrorKind::plugin), "plugin");
  EXPECT_EQ(error_kind_name(ErrorKind::cancelled), "cancelled");
  EXPECT_EQ(error_kind_name(ErrorKind::internal), "internal");
}

TEST(Error, WhereItHappenedIsSaidOnce) {
  qmill::Error error(qmill::ErrorKind::input, "broken");
  error.in("tensor 'a'").in("plugin 'b', read").in("tensor 'a'");
  EXPECT_STREQ(error.what(), "plugin 'b', read: tensor 'a': broken");
}

}  // namespace error_test
