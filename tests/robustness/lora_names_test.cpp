// The part of packs that names layers of LoRAs: what is read, and what is refused with which sentence.
#include "host/filter_pack.h"
#include "plugin_files.h"

namespace qmill {
namespace {

using testing::expect_error;

std::string with_lora_names(const std::string& value) {
  return R"({"filter_pack": 1, "name": "acme", "version": "1",
             "filters": [{"name": "f", "category": "image", "summary": "s", "keep": ["a"]}], "lora_names": )" +
         value + "}";
}

std::string with_names(const std::string& names) { return with_lora_names(R"([{"architectures": ["a"], "names": [)" + names + "]}]"); }

std::string with_layer(const std::string& parts) { return with_names(R"({"layers": {"x.qkv": )" + parts + "}}"); }

void rejected(const std::string& text, std::initializer_list<std::string_view> parts) {
  SCOPED_TRACE(text);
  expect_error(ErrorKind::input, parts, [&] { parse_filter_pack(text); });
}

TEST(LoraNames, APackHoldsBlocksAndLayers) {
  const FilterPack pack = parse_filter_pack(with_lora_names(R"([
      {"architectures": ["a", "b"], "names": [
        {"blocks": {"d.*": "t.*"}, "layers": {"qkv": [{"name": "q", "columns": 2}, "k", "v"], "out": "to_out.0",
                                              "mod": {"name": "n", "scale_first": true}}},
        {"layers": {"img_in": "x_embedder"}}]},
      {"architectures": ["c"], "names": [{"blocks": {"up": "down", "decoder": ""}}]}])"));
  ASSERT_EQ(pack.lora_names.size(), 2u);
  const LoraNames& first = pack.lora_names[0];
  EXPECT_EQ(first.architectures, (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(first.names.size(), 2u);
  EXPECT_EQ(first.names[0].blocks, (std::vector<std::pair<std::string, std::string>>{{"d.*", "t.*"}}));
  ASSERT_EQ(first.names[0].layers.size(), 3u);
  const LayerParts& qkv = first.names[0].layers[0];
  EXPECT_EQ(qkv.layer, "qkv");
  ASSERT_EQ(qkv.parts.size(), 3u);
  EXPECT_EQ(qkv.parts[0].name, "q");
  EXPECT_EQ(qkv.parts[0].columns, 2);
  EXPECT_EQ(qkv.parts[2].name, "v");
  EXPECT_EQ(qkv.parts[2].columns, 0);
  EXPECT_EQ(first.names[0].layers[1].parts[0].name, "to_out.0");
  EXPECT_FALSE(first.names[0].layers[1].scale_first);
  EXPECT_TRUE(first.names[0].layers[2].scale_first);
  EXPECT_TRUE(first.names[1].blocks.empty());
  EXPECT_TRUE(pack.lora_names[1].names[0].layers.empty());
  EXPECT_EQ(pack.lora_names[1].names[0].blocks.at(1), (std::pair<std::string, std::string>{"decoder", ""}));
}

TEST(LoraNames, WrongTypesAndEmptyValuesAreRefused) {
  rejected(with_lora_names("{}"), {"'lora_names'", "list"});
  rejected(with_lora_names("[]"), {"'lora_names'", "empty"});
  rejected(with_lora_names("[1]"), {"object was expected"});
  rejected(with_lora_names(R"([{"names": []}])"), {"no 'architectures'"});
  rejected(with_lora_names(R"([{"architectures": [], "names": []}])"), {"'architectures'", "empty"});
  rejected(with_lora_names(R"([{"architectures": ["a b"], "names": []}])"), {"'architectures'", "letters"});
  rejected(with_lora_names(R"([{"architectures": ["a"]}])"), {"LoRA names of 'a'", "no 'names'"});
  rejected(with_lora_names(R"([{"architectures": ["a"], "names": [], "x": 1}])"), {"'x'"});
  rejected(with_names("{}"), {"neither 'blocks' nor 'layers'"});
  rejected(with_names(R"({"blocks": {}})"), {"'blocks'", "empty"});
  rejected(with_names(R"({"blocks": ["a"]})"), {"'blocks'", "object"});
  rejected(with_names(R"({"blocks": {"a": 1}})"), {"'blocks'", "text"});
  rejected(with_names(R"({"layers": {}})"), {"'layers'", "empty"});
  rejected(with_names(R"({"layer": {"a": "b"}})"), {"'layer'", "'layers'"});
  rejected(with_layer("1"), {"LoRA names of 'a'", "layer 'x.qkv'", "text"});
  rejected(with_layer("[]"), {"empty"});
  rejected(with_layer(R"([{"name": "q"}])"), {"no 'columns'"});
  rejected(with_layer(R"([{"name": "q", "columns": 0}])"), {"'columns'", "from 1"});
  rejected(with_layer(R"({"name": "q"})"), {"no 'scale_first'"});
  rejected(with_layer(R"({"name": "q", "scale_first": 1})"), {"true or false"});
  rejected(with_layer(R"({"name": "q", "scale_first": true, "columns": 1})"), {"'columns'"});
}

TEST(LoraNames, StarsStandForNumbersOfBlocksAlone) {
  rejected(with_names(R"({"blocks": {"a.*": "b"}})"), {"'a.*' and 'b'", "stars"});
  rejected(with_names(R"({"blocks": {"a*": "b*"}})"), {"'a*'", "whole part"});
  rejected(with_names(R"({"layers": {"a.*": "b"}})"), {"'a.*'", "star"});
  rejected(with_layer(R"("b.*")"), {"'b.*'", "star"});
  rejected(with_layer(R"("b..c")"), {"'b..c'", "empty part"});
  rejected(with_layer(R"(".b")"), {"'.b'", "empty part"});
  rejected(with_names(R"({"blocks": {"": "b"}})"), {"'blocks'", "empty"});
}

TEST(LoraNames, ThereIsAMostOfThem) {
  std::string layers;
  for (int i = 0; i < 5001; ++i) layers += (i == 0 ? "" : ",") + ("\"l" + std::to_string(i)) + R"(": "x")";
  rejected(with_names(R"({"layers": {)" + layers + "}}"), {"more than 10000 names"});
}

}  // namespace
}  // namespace qmill
