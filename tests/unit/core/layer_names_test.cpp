// Names in LoRAs and the layers that they lead to. With data of real models: tests/cli/test_lora_families.py.
#include "lora/layer_names.h"
#include "core_support.h"

namespace qmill {
namespace {

using testing::expect_error;

const BlockNames& blocks() {
  static const BlockNames names = {{{"double.*", "trans.*"}, {"up.1.0", "out.7"}},
                                   {{"qkv", {{"to_q", 1}, {"to_k", 0}, {"to_v", 0}}, false},
                                    {"proj", {{"to_out.0", 0}}, false},
                                    {"mod", {{"norm", 0}}, true},
                                    {"odd", {{"a", 0}, {"b", 0}}, false}}};
  return names;
}

KnownModel known(ModelKind kind) { return {kind, {&blocks()}, {}}; }

std::vector<OtherName> names_of(std::string_view layer, std::int64_t rows, std::int64_t columns) {
  return other_names({&blocks()}, layer, rows, columns);
}

TEST(OtherNames, PartsFollowOneAnother) {
  const std::vector<OtherName> names = names_of("double.12.qkv", 16, 8);
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(names[0].name, "trans.12.to_q");
  EXPECT_EQ(names[0].rows, (RowRange{0, 8, false}));
  EXPECT_EQ(names[1].name, "trans.12.to_k");
  EXPECT_EQ(names[1].rows, (RowRange{8, 4, false}));
  EXPECT_EQ(names[2].rows, (RowRange{12, 4, false}));
  EXPECT_EQ(names_of("up.1.0.qkv", 16, 8).at(0).name, "out.7.to_q");
}

TEST(OtherNames, AreOfBlocksWithNumbersAndOfWholeParts) {
  for (const char* layer : {"double.x.qkv", "double.qkv", "adouble.1.qkv", "double.1.qkvx", "double.1.a.qkv", "up.1.1.qkv", "double.1", ""})
    EXPECT_TRUE(names_of(layer, 16, 8).empty()) << layer;
}

TEST(OtherNames, PartsThatTheRowsCannotHaveAreLeftOut) {
  EXPECT_TRUE(names_of("double.1.qkv", 7, 8).empty());
  EXPECT_TRUE(names_of("double.1.qkv", 17, 8).empty()) << "9 rows are no two equal shares";
  EXPECT_EQ(names_of("double.1.qkv", 8, 8).size(), 1u) << "nothing is left to share";
  EXPECT_TRUE(names_of("double.1.odd", 7, 8).empty());
}

TEST(OtherNames, HalvesAreExchangedWhereThereAreTwo) {
  EXPECT_EQ(names_of("double.1.mod", 16, 8).at(0).rows, (RowRange{0, 16, true}));
  EXPECT_EQ(names_of("double.1.mod", 48, 8).at(0).rows, std::nullopt);
}

TEST(OtherNames, ABlockWithoutLayersRenamesAllBelow) {
  const BlockNames all = {{{"in.4.1", "down.1.att.0"}}, {}};
  EXPECT_EQ(other_names({&all}, "in.4.1.x.0.q", 4, 4).at(0).name, "down.1.att.0.x.0.q");
  EXPECT_EQ(other_names({&all}, "in.4.1", 4, 4).at(0).name, "down.1.att.0");
  const BlockNames none = {{{"decoder", ""}}, {}};
  EXPECT_EQ(other_names({&none}, "decoder.layers.0.q", 4, 4).at(0).name, "layers.0.q");
  EXPECT_TRUE(other_names({&none}, "decoder", 4, 4).empty()) << "it would have no name";
}

TEST(LayerNames, ResolvesEverySpellingToTheRows) {
  const LayerNames names({{"model.diffusion_model.double.3.qkv", 24, 8}, {"model.diffusion_model.double.3.proj", 8, 8}},
                         known(ModelKind::diffusion));
  const LayerPlace value{0, RowRange{16, 8, false}};
  for (const char* name :
       {"trans.3.to_v", "transformer.trans.3.to_v", "diffusion_model.trans.3.to_v", "base_model.model.trans.3.to_v",
        "base_model.model.transformer.trans.3.to_v", "lora_unet_trans_3_to_v", "lora_unet__trans_3_to_v", "lora_transformer_trans_3_to_v",
        "lora_transformer.trans.3.to_v", "lycoris_trans_3_to_v", "unet.trans.3.processor.to_v", "trans.3.to_v.weight"})
    EXPECT_EQ(names.resolve(name).place, value) << name;
  for (const char* name : {"model.diffusion_model.double.3.qkv", "double.3.qkv", "lora_unet_double_3_qkv"})
    EXPECT_EQ(names.resolve(name).place, (LayerPlace{0, {}})) << name;
  for (const char* name : {"trans.3.to_out.0", "trans.3.to_out", "trans.3.processor.to_out", "lora_unet_trans_3_to_out_0"})
    EXPECT_EQ(names.resolve(name).place, (LayerPlace{1, {}})) << name;
  for (const char* name :
       {"trans.4.to_v", "trans.3.to_x", "lora_unet_trans_33_to_v", "lora_te_trans_3_to_v", "text_encoder.trans.3.to_v", "", "."})
    EXPECT_FALSE(names.resolve(name).place) << name;
}

TEST(LayerNames, TheModelsOwnNamesComeFirst) {
  const BlockNames clash = {{}, {{"a", {{"b", 0}}, false}}};
  const LayerNames names({{"a", 4, 4}, {"b", 4, 4}}, {ModelKind::diffusion, {&clash}, {}});
  EXPECT_EQ(names.resolve("transformer.b").place, (LayerPlace{1, {}}));
  EXPECT_EQ(names.resolve("lora_unet_b").place, (LayerPlace{1, {}}));
}

TEST(LayerNames, ANameOfTwoPartsIsRefused) {
  const BlockNames twice = {{}, {{"a", {{"x", 0}, {"x", 0}}, false}, {"b", {{"y", 0}}, false}, {"c", {{"y", 0}}, false}}};
  const LayerNames names({{"a", 4, 4}, {"b", 4, 4}, {"c", 4, 4}}, {ModelKind::diffusion, {&twice}, {}});
  expect_error(ErrorKind::input, {"'x'", "several parts", "'a'"}, [&] { names.resolve("x"); });
  expect_error(ErrorKind::input, {"'lora_unet_y'", "'b', 'c'"}, [&] { names.resolve("lora_unet_y"); });
}

TEST(LayerNames, EveryModelOfACheckpointGetsItsOwn) {
  const LayerNames names({{"model.diffusion_model.q", 4, 4},
                          {"conditioner.embedders.0.transformer.text_model.q", 4, 4},
                          {"conditioner.embedders.1.model.q", 4, 4},
                          {"first_stage_model.q", 4, 4}},
                         known(ModelKind::diffusion));
  const std::pair<const char*, std::size_t> expected[] = {
      {"lora_unet_q", 0},    {"transformer.q", 0}, {"lora_te_text_model_q", 1}, {"lora_te1_text_model_q", 1},
      {"text_encoder.q", 1}, {"te2.q", 2},         {"lora_te2_q", 2},           {"first_stage_model.q", 3}};
  for (const auto& [name, layer] : expected) EXPECT_EQ(names.resolve(name).place, (LayerPlace{layer, {}})) << name;
  expect_error(ErrorKind::input, {"'q'", "could be each of"}, [&] { names.resolve("q"); });
  EXPECT_TRUE(names.resolve("lora_te3_q").is_for_other_model);
  EXPECT_FALSE(names.resolve("lora_te2_gone").is_for_other_model);
}

TEST(LayerNames, TheOnlyEncoderOfACheckpointIsTheFirst) {
  for (const char* prefix : {"cond_stage_model.transformer.", "cond_stage_model.model.", "conditioner.embedders.0.model."}) {
    const LayerNames names({{"model.diffusion_model.q", 4, 4}, {prefix + std::string("text_model.encoder.q"), 4, 4}},
                           known(ModelKind::diffusion));
    for (const char* name : {"lora_te_text_model_encoder_q", "lora_te1_text_model_encoder_q", "text_encoder.text_model.encoder.q"})
      EXPECT_EQ(names.resolve(name).place, (LayerPlace{1, {}})) << prefix << " " << name;
    EXPECT_TRUE(names.resolve("lora_te2_text_model_encoder_q").is_for_other_model) << prefix;
  }
}

TEST(LayerNames, WhatIsForAnotherModelIsSaid) {
  const LayerNames diffusion({{"q", 4, 4}}, known(ModelKind::diffusion));
  EXPECT_TRUE(diffusion.resolve("lora_te_q").is_for_other_model);
  EXPECT_FALSE(diffusion.resolve("lora_unet_x").is_for_other_model);
  EXPECT_FALSE(diffusion.resolve("x").is_for_other_model);
  const LayerNames encoder({{"q", 4, 4}}, known(ModelKind::text_encoder));
  EXPECT_TRUE(encoder.resolve("lora_unet_q").is_for_other_model);
  EXPECT_EQ(encoder.resolve("transformer.q").place, (LayerPlace{0, {}})) << "text encoders have such names of their own";
  EXPECT_TRUE(encoder.resolve("transformer.x").is_for_other_model);
  const LayerNames unknown({{"q", 4, 4}}, {});
  EXPECT_FALSE(unknown.resolve("lora_te_x").is_for_other_model);
  EXPECT_EQ(unknown.resolve("lora_te_q").place, (LayerPlace{0, {}}));
}

TEST(LayerNames, TheThirdEncoderMayBeCalledTheSecond) {
  const auto number_of_t5 = [](bool has_second, const char* name) {
    std::vector<NamedLayer> layers = {{"text_encoders.clip_l.transformer.a", 4, 4}, {"text_encoders.t5xxl.transformer.q", 4, 4}};
    if (has_second) layers.push_back({"text_encoders.clip_g.transformer.a", 4, 4});
    return LayerNames(layers, known(ModelKind::diffusion)).resolve(name).place.has_value();
  };
  EXPECT_TRUE(number_of_t5(false, "lora_te3_q"));
  EXPECT_TRUE(number_of_t5(false, "lora_te2_q"));
  EXPECT_FALSE(number_of_t5(false, "lora_te1_q"));
  EXPECT_TRUE(number_of_t5(true, "lora_te3_q"));
  EXPECT_FALSE(number_of_t5(true, "lora_te2_q"));
}

}  // namespace
}  // namespace qmill
