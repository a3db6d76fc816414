// Which readers a plan is for.
#include <qmill/core/readers.h>

#include "formats.h"

#include <gtest/gtest.h>

namespace qmill {
namespace {

Decision decision(const char* format, const StorageOptions& wanted = {}, const char* name = "a.weight") {
  const WritableFormat& stored_in = testing::writable_format(format);
  Decision decision;
  decision.action = Action::quantize;
  decision.source = {name, DType::bf16, {256, 512}};
  decision.target.format = &stored_in;
  decision.target.layout = stored_in.layout(decision.source, wanted);
  decision.label = stored_in.label(decision.target.layout);
  decision.outputs = stored_in.outputs(decision.source, decision.target.layout);
  return decision;
}

StorageOptions with(Scaling scaling, Naming naming = Naming::comfy) {
  StorageOptions wanted;
  wanted.scaling = scaling;
  wanted.naming = naming;
  return wanted;
}

std::string text_of(std::vector<Decision> decisions) {
  Plan plan;
  plan.decisions = std::move(decisions);
  return readers_text(plan);
}

TEST(Readers, OfInt8TheyLoadOneScaleAndScalesPerRowUnderTheirOwnNames) {
  for (const Scaling scaling : {Scaling::row, Scaling::tensor, Scaling::block, Scaling::axis}) {
    EXPECT_EQ(reader_of(decision("int8", with(scaling))).loads, scaling == Scaling::row || scaling == Scaling::tensor);
    EXPECT_FALSE(reader_of(decision("int8", with(scaling, Naming::legacy))).loads);
  }
  EXPECT_EQ(reader_of(decision("int8")).since, "0.27.0");
  EXPECT_EQ(reader_of(decision("int8", {}, "model.embed_tokens.weight")).since, "0.30.0");
}

TEST(Readers, OfInt4TheyLoadWhatIsRotatedAndFloatsAlways) {
  EXPECT_EQ(reader_of(decision("int4")).since, "0.28.0");
  StorageOptions unrotated;
  unrotated.rotation.mode = Rotation::Mode::off;
  EXPECT_FALSE(reader_of(decision("int4", unrotated)).loads);
  EXPECT_TRUE(reader_of(decision("fp16")).loads);
  EXPECT_EQ(reader_of(decision("fp16")).since, "");
}

TEST(Readers, TheTextNamesTheNewestReleaseOrTheFirstLayoutThatIsNotLoaded) {
  StorageOptions unrotated;
  unrotated.rotation.mode = Rotation::Mode::off;
  EXPECT_EQ(text_of({}), "");
  EXPECT_EQ(text_of({decision("fp16")}), "");
  EXPECT_EQ(text_of({decision("int8"), decision("int4"), decision("fp16")}), "ComfyUI 0.28.0 or newer");
  EXPECT_EQ(text_of({decision("int8"), decision("int8", with(Scaling::block))}),
            "mainline ComfyUI does not load int8_blockwise; `scaling_mode row` does");
  EXPECT_EQ(text_of({decision("int4", unrotated)}), "mainline ComfyUI does not load int4_rowwise");
  EXPECT_EQ(text_of({decision("int8", with(Scaling::tensor, Naming::legacy))}),
            "mainline ComfyUI does not load int8_tensorwise with legacy names");
}

TEST(Readers, OfAModelThatIsNotKnownTheTextClaimsNothing) {
  Plan plan;
  plan.decisions = {decision("int8")};
  plan.not_judged = "the model: its architecture is not recognised";
  EXPECT_EQ(readers_text(plan), "not known: the model: its architecture is not recognised (the formats need ComfyUI 0.27.0 or newer)");
  EXPECT_EQ(reader_of(plan).loads, std::nullopt);
  plan.decisions = {decision("fp16")};
  EXPECT_EQ(readers_text(plan), "") << "floats need no marker";
  plan.not_loaded = "quantized layers of the VAE";
  EXPECT_EQ(readers_text(plan), "mainline ComfyUI does not load quantized layers of the VAE");
  EXPECT_EQ(reader_of(plan).loads, false);
}

}  // namespace
}  // namespace qmill
