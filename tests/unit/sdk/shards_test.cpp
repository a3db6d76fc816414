#include <qmill/shards.h>

#include <expect_error.h>
#include <qmill/source_details.h>

#include <gtest/gtest.h>

using namespace qmill;
using qmill::testing::expect_error;

namespace fs = std::filesystem;

namespace shards_test {

// A file whose tensors are named, each with what is said of it.
class FakeFile : public TensorSource {
 public:
  FakeFile(fs::path file, const std::vector<std::string>& names) : file_(std::move(file)) {
    for (const std::string& name : names) tensors_.push_back({name, DType::f32, {1}});
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<fs::path> files() const override { return {file_}; }
  void read_part(std::size_t, std::uint64_t, std::span<std::byte>) const override {}
  std::optional<Extent> extent(std::size_t) const override { return std::nullopt; }

 protected:
  const fs::path file_;
  std::vector<TensorInfo> tensors_;
  const std::map<std::string, std::string> metadata_;
};

class TalkingFile final : public FakeFile, public SourceDetails {
 public:
  using FakeFile::FakeFile;
  std::string stored_type(std::size_t index) const override { return "type of " + tensors_[index].name; }
  std::vector<std::string> remarks() const override { return {"read " + file_.string(), "all of it"}; }
};

TEST(Shards, AJoinedModelTellsWhatItsFilesTell) {
  const auto source = open_shards({"a", "b", "c"}, nullptr, [](const fs::path& file) -> std::unique_ptr<TensorSource> {
    if (file == "b") return std::make_unique<FakeFile>(file, std::vector<std::string>{"b0"});
    return std::make_unique<TalkingFile>(file, std::vector<std::string>{file.string() + "0", file.string() + "1"});
  });
  std::vector<std::string> types;
  for (std::size_t i = 0; i < source->tensors().size(); ++i) types.push_back(stored_type(*source, i));
  EXPECT_EQ(types, (std::vector<std::string>{"type of a0", "type of a1", "", "type of c0", "type of c1"}));
  EXPECT_EQ(source_remarks(*source), (std::vector<std::string>{"read a", "all of it", "read c", "all of it"}));
}

TEST(Shards, APartHasTwoNumbersOfFiveDigits) {
  const std::optional<ShardName> part = parse_shard_name("m.fp16-00002-of-00013.safetensors");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->stem, "m.fp16");
  EXPECT_EQ(part->ending, ".safetensors");
  EXPECT_EQ(part->number, 2);
  EXPECT_EQ(part->count, 13);
  for (const char* name :
       {"step-3-of-10.safetensors", "m-00001-of-0002.safetensors", "m-0001-of-00002.safetensors", "m-000001-of-00002.safetensors",
        "m-00001-of-000002.safetensors", "m-0000x-of-00002.safetensors", "m00001-of-00002.safetensors", "m-00001-of-00002"}) {
    EXPECT_FALSE(parse_shard_name(name)) << name;
    EXPECT_EQ(shards_beside(fs::path("none") / name), std::vector{fs::path("none") / name});
  }
}

TEST(Shards, APartInAFolderThatCannotBeReadIsAnErrorOfTheSystem) {
  expect_error(ErrorKind::io, {"m-00001-of-00002.safetensors", "cannot read its folder"},
               [] { shards_beside("/no/such/folder/m-00001-of-00002.safetensors"); });
}

}  // namespace shards_test
