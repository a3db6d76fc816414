#include "text.h"

#include <gtest/gtest.h>

namespace qmill::app {
namespace {

TEST(AsFlags, NamesOptionsAsACommandLineDoes) {
  EXPECT_EQ(as_flags("`calib_samples` is '0'"), "--calib-samples is '0'");
  EXPECT_EQ(as_flags("use `scaling_mode row`, or `convrot off`"), "use --scaling-mode row, or --convrot off");
}

TEST(AsFlags, SwitchesHaveANegativeForm) {
  EXPECT_EQ(as_flags("add `comfy_quant off`"), "add --no-comfy-quant");
  EXPECT_EQ(as_flags("use `comfy_quant on`"), "use --comfy-quant");
}

TEST(AsFlags, LeavesTheRestAsItIs) {
  EXPECT_EQ(as_flags(""), "");
  EXPECT_EQ(as_flags("a ` alone"), "a ` alone");
  EXPECT_EQ(as_flags("tensor 'a`B`c'"), "tensor 'a`B`c'");
  EXPECT_EQ(as_flags("``"), "``");
}

}  // namespace
}  // namespace qmill::app
