#include <source.h>

#include <expect_error.h>
#include <model_file.h>
#include <temp_dir.h>

#include <gmock/gmock.h>

#include <cstring>

using namespace safetensors;
using qmill::Error;
using qmill::ErrorKind;
using qmill::testing::error_of;
using qmill::testing::NamedTensor;
using qmill::testing::random_weight;
using qmill::testing::read_bytes;
using qmill::testing::TempDir;
using qmill::testing::write_bytes;
using qmill::testing::write_model;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

namespace {

std::vector<std::string> names(const qmill::TensorSource& source) {
  std::vector<std::string> names;
  for (const qmill::TensorInfo& tensor : source.tensors()) names.push_back(tensor.name);
  return names;
}

void expect_data(const qmill::TensorSource& source, std::size_t index, const at::Tensor& expected) {
  const qmill::TensorInfo& info = source.tensors()[index];
  ASSERT_EQ(info, qmill::info_of({info.name, expected}));
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
  source.read(index, bytes);
  EXPECT_EQ(std::memcmp(bytes.data(), expected.const_data_ptr(), bytes.size()), 0) << info.name;
}

class Files : public ::testing::Test {
 protected:
  TempDir folder;
  const at::Tensor a = random_weight(5, 7, at::kBFloat16, 1);
  const at::Tensor b = random_weight(1, 129, at::kFloat, 2);
};

TEST_F(Files, EveryTensorIsReadAsItWasWritten) {
  write_model(folder / "m.safetensors", {{"b", b}, {"a", a}, {"empty", random_weight(0, 7, at::kHalf, 3)}}, {{"k", "v"}});
  const auto source = open_file(folder / "m.safetensors");
  ASSERT_THAT(names(*source), ElementsAre("b", "a", "empty"));
  expect_data(*source, 0, b);
  expect_data(*source, 1, a);
  expect_data(*source, 2, random_weight(0, 7, at::kHalf, 3));
  EXPECT_EQ(source->metadata(), (std::map<std::string, std::string>{{"k", "v"}}));
  EXPECT_THAT(source->files(), ElementsAre(folder / "m.safetensors"));
}

TEST_F(Files, TheExtentIsWhereTheBytesLie) {
  write_model(folder / "m.safetensors", {{"b", b}, {"a", a}});
  const auto source = open_file(folder / "m.safetensors");
  const std::optional<qmill::Extent> extent = source->extent(1);
  ASSERT_TRUE(extent);
  EXPECT_EQ(extent->file, folder / "m.safetensors");
  EXPECT_EQ(extent->bytes, 70u);
  EXPECT_EQ(read_bytes(extent->file).substr(extent->offset, extent->bytes), std::string(static_cast<const char*>(a.const_data_ptr()), 70));
  source->prefetch(1);
}

TEST_F(Files, AFileCutShortAnywhereIsRefused) {
  write_model(folder / "whole.safetensors", {{"a", a}, {"b", b}}, {{"k", "v"}});
  const std::string whole = read_bytes(folder / "whole.safetensors");
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    write_bytes(folder / "cut.safetensors", std::string_view(whole).substr(0, bytes));
    const Error error = error_of([&] { open_file(folder / "cut.safetensors"); });
    ASSERT_EQ(error.kind(), ErrorKind::input) << bytes;
    ASSERT_THAT(error.what(), HasSubstr("cut.safetensors'")) << bytes;
  }
}

TEST_F(Files, AFileThatShrinksAfterwardsIsAnInputError) {
  write_model(folder / "m.safetensors", {{"a", a}, {"b", b}});
  const auto source = open_file(folder / "m.safetensors");
  fs::resize_file(folder / "m.safetensors", fs::file_size(folder / "m.safetensors") - 1);
  expect_data(*source, 0, a);
  std::vector<std::byte> bytes(static_cast<std::size_t>(source->tensors()[1].bytes()));
  const Error error = error_of([&] { source->read(1, bytes); });
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("m.safetensors'"), HasSubstr("cut short")));
}

TEST_F(Files, AFileThatIsMissingIsAnIoError) {
  const Error error = error_of([&] { open_file(folder / "none.safetensors"); });
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_THAT(error.what(), HasSubstr("none.safetensors'"));
}

class Shards : public Files {
 protected:
  Shards() {
    write_model(folder / "x-1.safetensors", {{"a", a}}, {{"k", "first"}});
    write_model(folder / "x-2.safetensors", {{"b", b}}, {{"k", "second"}, {"l", "w"}});
  }

  fs::path index(std::string_view text) const {
    write_bytes(folder / "x.safetensors.index.json", text);
    return folder / "x.safetensors.index.json";
  }

  Error index_error(std::string_view text) const {
    const fs::path path = index(text);
    const Error error = error_of([&] { open_index(path); });
    EXPECT_THAT(error.what(), HasSubstr("x.safetensors.index.json'"));
    return error;
  }
};

constexpr std::string_view kIndex = R"({"metadata":{"total_size":586},"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}})";

TEST_F(Shards, AnIndexOpensItsShardsAsOneModel) {
  const auto source = open_index(index(kIndex));
  ASSERT_THAT(names(*source), ElementsAre("a", "b"));
  expect_data(*source, 0, a);
  expect_data(*source, 1, b);
  EXPECT_THAT(source->files(), ElementsAre(folder / "x-1.safetensors", folder / "x-2.safetensors"));
  EXPECT_EQ(source->metadata(), (std::map<std::string, std::string>{{"k", "first"}, {"l", "w"}}));
  EXPECT_EQ(source->extent(1)->file, folder / "x-2.safetensors");
}

TEST_F(Shards, AFolderIsItsIndexAndNotWhatElseLiesThere) {
  index(kIndex);
  write_model(folder / "other.safetensors", {{"a", b}});
  EXPECT_THAT(names(*open_folder(folder.path())), ElementsAre("a", "b"));
}

TEST_F(Shards, AFolderWithoutIndexIsAllItsFiles) {
  write_bytes(folder / "config.json", "{}");
  EXPECT_THAT(names(*open_folder(folder.path())), ElementsAre("a", "b"));
}

TEST_F(Shards, ATensorInTwoFilesOfAFolderIsAnErrorThatNamesBoth) {
  write_model(folder / "x-3.safetensors", {{"a", b}});
  const Error error = error_of([&] { open_folder(folder.path()); });
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("'a'"), HasSubstr("x-1.safetensors'"), HasSubstr("x-3.safetensors'")));
}

TEST_F(Shards, AFolderWithoutIndexIsOneModelByItsNames) {
  write_model(folder / "y.safetensors", {{"c", b}});
  EXPECT_THAT(error_of([&] { open_folder(folder.path()); }).what(),
              AllOf(HasSubstr("2 models"), HasSubstr("'x-*.safetensors'"), HasSubstr("'y.safetensors'")));
  fs::rename(folder / "y.safetensors", folder / "x-4.safetensors");
  EXPECT_THAT(error_of([&] { open_folder(folder.path()); }).what(), HasSubstr("number 3 is missing"));
  fs::rename(folder / "x-4.safetensors", folder / "x-3.safetensors");
  write_bytes(folder / "._x-3.safetensors", "made by an archive");
  EXPECT_THAT(names(*open_folder(folder.path())), ElementsAre("a", "b", "c"));
}

TEST_F(Shards, AFolderOfTwoIndexesOrOfNothingIsAnError) {
  index(kIndex);
  write_bytes(folder / "y.safetensors.index.json", kIndex);
  EXPECT_THAT(error_of([&] { open_folder(folder.path()); }).what(), HasSubstr("2 indexes"));
  const TempDir nothing;
  EXPECT_THAT(error_of([&] { open_folder(nothing.path()); }).what(), HasSubstr("no .safetensors file"));
}

TEST_F(Shards, AShardThatIsMissingIsNamed) {
  const Error error = index_error(R"({"weight_map":{"a":"x-1.safetensors","b":"x-9.safetensors"}})");
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), HasSubstr("1 of the 2 files that the index names is missing: 'x-9.safetensors'"));
}

TEST_F(Shards, AnIndexMustNotReachOutOfItsFolder) {
  const TempDir elsewhere;
  write_model(elsewhere / "x.safetensors", {{"a", a}});
  for (const std::string& shard :
       {std::string("../x.safetensors"), (elsewhere / "x.safetensors").string(), std::string("sub/x.safetensors"),
        std::string("./x-1.safetensors"), std::string(".."), std::string(), std::string("/etc/passwd")}) {
    const Error error = index_error(R"({"weight_map":{"a":")" + shard + R"("}})");
    EXPECT_EQ(error.kind(), ErrorKind::input);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'" + shard + "'"), HasSubstr("its own folder"))) << shard;
  }
}

TEST_F(Shards, AShardWithAControlCharacterInItsNameIsAnError) {
  for (const std::string escape : {"\\u0000", "\\u0001", "\\n", "\\u001b", "\\u007f"}) {
    const std::string shard = "x-1.safetensors" + escape + "x";
    const Error error = index_error(R"({"weight_map":{"a":")" + shard + R"("}})");
    EXPECT_EQ(error.kind(), ErrorKind::input) << shard;
    EXPECT_THAT(error.what(), AllOf(HasSubstr('"' + shard + '"'), HasSubstr("control characters"), HasSubstr("get the index again")))
        << shard;
  }
}

TEST_F(Shards, AShardNameNeedNotBeAscii) {
  fs::rename(folder / "x-1.safetensors", folder / "\u00e9 \u6a21.safetensors");
  EXPECT_THAT(names(*open_index(index("{\"weight_map\":{\"a\":\"\u00e9 \u6a21.safetensors\"}}"))), ElementsAre("a"));
}

TEST_F(Shards, ATensorThatTheIndexDoesNotNameIsAnError) {
  write_model(folder / "x-2.safetensors", {{"b", b}, {"c", a}});
  const Error error = index_error(kIndex);
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("'c'"), HasSubstr("x-2.safetensors'")));
}

TEST_F(Shards, ATensorThatIsNotInItsShardIsAnError) {
  const Error error = index_error(R"({"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-2.safetensors"}})");
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("'c'"), HasSubstr("x-2.safetensors'")));
}

TEST_F(Shards, AnIndexThatSwapsShardsIsAnError) {
  EXPECT_EQ(index_error(R"({"weight_map":{"a":"x-2.safetensors","b":"x-1.safetensors"}})").kind(), ErrorKind::input);
}

TEST_F(Shards, ATensorInTwoShardsIsAnError) {
  write_model(folder / "x-2.safetensors", {{"a", a}, {"b", b}});
  EXPECT_THAT(index_error(kIndex).what(), AllOf(HasSubstr("'a'"), HasSubstr("x-1.safetensors'"), HasSubstr("x-2.safetensors'")));
}

TEST_F(Shards, AnIndexThatIsNoneIsAnError) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  const std::vector<std::string> texts = {"",
                                          "{",
                                          "[]",
                                          "{}",
                                          R"({"weight_map":[]})",
                                          R"({"weight_map":{"a":7}})",
                                          R"({"weight_map":{"a":null}})",
                                          "\xff",
                                          R"({"weight_map":)" + deep + "}"};
  for (const std::string& text : texts) EXPECT_EQ(index_error(text).kind(), ErrorKind::input) << text.substr(0, 40);
}

TEST_F(Shards, AnEmptyIndexIsAModelWithoutTensors) { EXPECT_TRUE(open_index(index(R"({"weight_map":{}})"))->tensors().empty()); }

class Parts : public Files {
 protected:
  fs::path part(const std::string& number, const at::Tensor& tensor) const {
    const fs::path path = folder / ("m-0000" + number + "-of-00003.safetensors");
    write_model(path, {{"t" + number, tensor}});
    return path;
  }
};

TEST_F(Parts, OnePartOpensAllOfThemInOrder) {
  const fs::path third = part("3", a), first = part("1", b), second = part("2", a);
  write_model(folder / "m-00001-of-00002.safetensors", {{"t1", a}});  // of another set
  for (const fs::path& file : {first, second, third}) {
    EXPECT_THAT(names(*open_file(file)), ElementsAre("t1", "t2", "t3"));
    EXPECT_THAT(open_file(file)->files(), ElementsAre(first, second, third));
  }
}

TEST_F(Parts, PartsThatAreMissingAreNamed) {
  const fs::path second = part("2", a);
  const Error error = error_of([&] { open_file(second); });
  EXPECT_EQ(error.kind(), ErrorKind::input);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("one of 3 parts"), HasSubstr("2 are missing"), HasSubstr("'m-00001-of-00003.safetensors'"),
                                  HasSubstr("'m-00003-of-00003.safetensors'")));
  EXPECT_THAT(error_of([&] { open_folder(folder.path()); }).what(), HasSubstr("'m-00001-of-00003.safetensors'"));
}

TEST_F(Parts, TheIndexBesideAPartDecides) {
  const fs::path first = part("1", a);
  part("2", b);
  write_bytes(folder / "m.safetensors.index.json",
              R"({"weight_map":{"t1":"m-00001-of-00003.safetensors","t2":"m-00002-of-00003.safetensors"}})");
  EXPECT_THAT(names(*open_file(first)), ElementsAre("t1", "t2"));
  EXPECT_THAT(error_of([&] { open_file(part("3", a)); }).what(), HasSubstr("m.safetensors.index.json', does not name it"));
}

TEST_F(Parts, APartBeyondTheirNumberIsAnError) {
  EXPECT_THAT(error_of([&] { open_file(part("4", a)); }).what(), HasSubstr("part 4 of 3"));
  EXPECT_THAT(error_of([&] { open_file(part("0", a)); }).what(), HasSubstr("part 0 of 3"));
}

TEST_F(Parts, TheOnlyPartIsAFileAlone) {
  write_model(folder / "m-00001-of-00001.safetensors", {{"a", a}});
  EXPECT_THAT(names(*open_file(folder / "m-00001-of-00001.safetensors")), ElementsAre("a"));
}

TEST(IsIndex, TheNameDecides) {
  EXPECT_TRUE(is_index("a/model.safetensors.index.json"));
  EXPECT_FALSE(is_index("a/model.index.json"));
  EXPECT_FALSE(is_index("a/model.safetensors"));
}

}  // namespace
