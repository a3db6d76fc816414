#include "core_support.h"

#include <qmill/core/edit.h>

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

namespace qmill::testing {
namespace {

struct MarkedFile {
  MarkedFile() {
    edit.input = dir / "in.safetensors";
    edit.output = dir / "out.safetensors";
    write_model(edit.input, {{"a.weight_scale", at::full({4, 1}, 0.5)},
                             {"a.weight", at::full({4, 8}, 3, at::kChar)},
                             {"a.comfy_quant", bytes_of(R"({"format":"int8_tensorwise","x":1})")}});
    edit.sync = false;
  }

  TempDir dir;
  MarkerEdit edit;
};

TEST(AddedKeys, JsonStaysAsItIs) {
  EXPECT_EQ(parse_added_keys(R"({"a":[1,2.5,{"b":null}],"c":"d, e"})"), R"({"a":[1,2.5,{"b":null}],"c":"d, e"})");
}

TEST(AddedKeys, PairsBecomeJson) {
  EXPECT_EQ(parse_added_keys("'a': 1e-3, b: 'c, d', 'e': {'f': [True, None]}"), R"({"a":0.001,"b":"c, d","e":{"f":[true,null]}})");
}

TEST(AddedKeys, AnErrorNamesThePlace) {
  expect_error(ErrorKind::usage, {"character 9", "',' or the end", "'b'"}, [] { parse_added_keys("'a': 1  'b'"); });
  expect_error(ErrorKind::usage, {"'a' twice"}, [] { parse_added_keys("'a': 1, 'a': 2"); });
  expect_error(ErrorKind::usage, {"character 6", "a number that JSON has", "'nan'"}, [] { parse_added_keys("'a': nan"); });
  for (const char* word : {"NaN", "inf", "Infinity", "INF", "-inf", "-Infinity", "+nan"})
    for (const std::string& text : {std::string("k: ") + word, R"({"k": [1, )" + std::string(word) + "]}"})
      expect_error(ErrorKind::usage, {"expected a", word}, [&] { parse_added_keys(text); });
  EXPECT_EQ(parse_added_keys("nan: 'nan', inf: infinite"), R"({"nan":"nan","inf":"infinite"})");
  expect_error(ErrorKind::usage, {"less nesting"}, [] { parse_added_keys("'a': " + std::string(100000, '[')); });
}

TEST(Edit, ChangesTheMarkerAndKeepsItsOrder) {
  MarkedFile file;
  file.edit.add = "'y': 2";
  file.edit.remove = {"x"};
  const EditReport report = edit_markers(host(), file.edit);
  EXPECT_EQ(report.changed, std::vector<std::string>{"a"});
  const ModelFile written = read_model(file.edit.output);
  EXPECT_EQ(testing::text_of(written.tensors.at("a.comfy_quant")), R"({"format":"int8_tensorwise","y":2})");
  EXPECT_EQ(report.bytes_written, std::filesystem::file_size(file.edit.output));
}

TEST(Edit, AnInterruptionLeavesNothing) {
  MarkedFile file;
  file.edit.add = "'y': 2";
  const std::atomic<bool> cancel = true;
  expect_error(ErrorKind::cancelled, {"interrupted"}, [&] { edit_markers(host(), file.edit, &cancel); });
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(file.dir.path()), {}), 1);
}

TEST(Edit, TheDefaultNameIsBesideTheInput) {
  EXPECT_EQ(default_edited_output("d/m.safetensors"), "d/m_edited.safetensors");
  EXPECT_EQ(default_edited_output("d/m.safetensors.index.json"), "d/m_edited.safetensors");
  EXPECT_EQ(default_edited_output("d/shards/"), "d/shards_edited.safetensors");
}

}  // namespace
}  // namespace qmill::testing
