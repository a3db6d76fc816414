#include "core_support.h"

#include <qmill/core/batch.h>

#include <gtest/gtest.h>

namespace qmill::testing {
namespace {

using Paths = std::vector<std::filesystem::path>;

LoraMapping mapping_of(const TempDir& dir, std::string_view json, const std::filesystem::path& folder = {}) {
  write_bytes(dir / "mapping.json", json);
  return {dir / "mapping.json", folder};
}

TEST(LoraMapping, TheNameBeatsTheStemAndTheStemBeatsAPart) {
  const TempDir dir;
  LoraMapping mapping = mapping_of(dir, R"({"m": "part", "m_v1": "stem", "m_v1.safetensors": "name", "_m_v1": 7})");
  EXPECT_EQ(mapping.loras_for("models/m_v1.safetensors"), Paths{"name"});
  EXPECT_EQ(mapping.loras_for("models/m_v1.gguf"), Paths{"stem"});
  EXPECT_EQ(mapping.loras_for("models/m_v2.safetensors"), Paths{"part"});
  EXPECT_TRUE(mapping.unused().empty());
}

TEST(LoraMapping, APartEndsAtASeparator) {
  const TempDir dir;
  LoraMapping mapping = mapping_of(dir, R"({"wan": ["a", "b"]})");
  for (const char* model : {"wan.safetensors", "my-wan_2.safetensors", "2.wan"})
    EXPECT_EQ(mapping.loras_for(model), (Paths{"a", "b"})) << model;
  for (const char* model : {"swan.safetensors", "wan2.safetensors", "wa.n"}) EXPECT_TRUE(mapping.loras_for(model).empty()) << model;
}

TEST(LoraMapping, TheFirstPartOfTheMappingWins) {
  const TempDir dir;
  LoraMapping mapping = mapping_of(dir, R"({"b": "second", "a": "first"})");
  EXPECT_EQ(mapping.loras_for("a_b.safetensors"), Paths{"second"});
  EXPECT_EQ(mapping.unused(), std::vector<std::string>{"a"});
}

TEST(LoraMapping, OnlyBareNamesAreInTheFolder) {
  const TempDir dir;
  LoraMapping mapping = mapping_of(dir, R"({"m": ["bare", "./here", "/there"]})", dir.path());
  EXPECT_EQ(mapping.loras_for("m.safetensors"), (Paths{dir / "bare", "./here", "/there"}));
}

TEST(LoraMapping, AFolderWithADotIsNamedInFull) {
  const TempDir dir;
  write_bytes(dir / "flux.1-dev.safetensors", "");
  LoraMapping mapping({}, dir.path());
  for (const char* model : {"models/flux.1-dev", "models/flux.1-dev/", "models/flux.1-dev.gguf"})
    EXPECT_EQ(mapping.loras_for(model), Paths{dir / "flux.1-dev.safetensors"}) << model;
}

TEST(LoraMapping, AModelIsNoLoraOfItself) {
  const TempDir dir;
  write_bytes(dir / "m.safetensors", "");
  LoraMapping mapping({}, dir.path());
  EXPECT_TRUE(mapping.loras_for(dir / "m.safetensors").empty());
  write_bytes(dir / "m_lora.safetensors", "");
  EXPECT_EQ(mapping.loras_for(dir / "m.safetensors"), Paths{dir / "m_lora.safetensors"});
}

TEST(FindModels, APatternIsNoRegularExpression) {
  const TempDir dir;
  for (const char* name : {"a.b", "aab", "a+b", ".a.b"}) write_bytes(dir / name, "");
  EXPECT_EQ(find_models(dir.path(), "a.b"), Paths{dir / "a.b"});
  EXPECT_EQ(find_models(dir.path(), "a?b"), (Paths{dir / "a+b", dir / "a.b", dir / "aab"}));
  EXPECT_EQ(find_models(dir.path(), "*+*"), Paths{dir / "a+b"});
  expect_error(ErrorKind::usage, {"'b*'"}, [&] { find_models(dir.path(), "b*"); });
}

TEST(FindModels, AnIndexStandsForAllOfItsFiles) {
  const TempDir dir;
  const std::string first = "m-00001-of-00002.safetensors", second = "m-00002-of-00002.safetensors";
  for (const std::string& name : {first, second, std::string("x.safetensors"), std::string("y.safetensors")}) write_bytes(dir / name, "");
  const std::filesystem::path index = dir / "m.safetensors.index.json";
  write_bytes(index, R"({"weight_map":{"a":")" + first + R"(","b":")" + second + R"(","c":"y.safetensors"}})");
  EXPECT_EQ(find_models(dir.path(), "*.safetensors"), (Paths{index, dir / "x.safetensors"}));
  EXPECT_EQ(find_models(dir.path(), "m-*"), Paths{index});
}

TEST(FindModels, ANameWithStarsThatExistsIsItself) {
  const TempDir dir;
  for (const char* name : {"*.x", "a.x"}) write_bytes(dir / name, "");
  EXPECT_EQ(expand_model(dir / "*.x"), Paths{dir / "*.x"});
  EXPECT_EQ(expand_model(dir / "?.x"), (Paths{dir / "*.x", dir / "a.x"}));
  EXPECT_EQ(expand_model(dir / "none.x"), Paths{dir / "none.x"});
}

}  // namespace
}  // namespace qmill::testing
