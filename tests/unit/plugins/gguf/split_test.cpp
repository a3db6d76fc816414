#include "gguf_bytes.h"

#include <source.h>
#include <split.h>

#include <expect_error.h>
#include <model_file.h>
#include <qmill/source_details.h>
#include <temp_dir.h>

#include <gtest/gtest.h>

#include <limits>

using namespace gguf;
using namespace gguf_test;
using qmill::ErrorKind;
using qmill::testing::expect_error;
using qmill::testing::TempDir;
using qmill::testing::write_bytes;

namespace {

std::string key(const std::string& name, std::uint32_t value) { return text(name) + number<std::uint32_t>(4) + number(value); }
std::string key(const std::string& name, const std::string& value) { return text(name) + number<std::uint32_t>(8) + text(value); }

struct Part {
  std::uint32_t number;
  std::uint32_t count = 2;
  std::uint32_t tensors = 2;  // of all parts
  std::string tensor;
  std::string architecture = "flux";
};

class Split : public ::testing::Test {
 protected:
  void write(const std::string& name, const Part& part) const {
    write_bytes(folder / name, file({key("split.no", part.number), key("split.count", part.count), key("split.tensors.count", part.tensors),
                                     key("general.architecture", part.architecture)},
                                    {entry(part.tensor, {4}, 0, 0)}, std::string(16, static_cast<char>('a' + part.number))));
  }

  void expect_refused(const std::string& name, std::initializer_list<std::string_view> parts) const {
    expect_error(ErrorKind::input, parts, [&] { open_model(folder / name); });
  }

  const TempDir folder;
  const std::string first = "m-00001-of-00002.gguf";
  const std::string second = "m-00002-of-00002.gguf";
};

TEST_F(Split, AnyPartOpensTheWholeModel) {
  write(first, {.number = 0, .tensor = "a"});
  write(second, {.number = 1, .tensor = "b"});
  for (const std::string& name : {first, second}) {
    const auto source = open_model(folder / name);
    ASSERT_EQ(source->tensors().size(), 2u);
    EXPECT_EQ(source->files(), (std::vector{folder / first, folder / second}));
    EXPECT_EQ(source->metadata(), (std::map<std::string, std::string>{{"general.architecture", "flux"}}));
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(source->tensors()[i].name, i == 0 ? "a" : "b");
      EXPECT_EQ(source->extent(i)->file, source->files()[i]);
      std::string bytes(16, '\0');
      source->read(i, std::as_writable_bytes(std::span(bytes)));
      EXPECT_EQ(bytes, std::string(16, i == 0 ? 'a' : 'b'));
    }
    const std::vector<std::string> remarks = source_remarks(*source);
    ASSERT_EQ(remarks.size(), 1u);
    EXPECT_NE(remarks[0].find("all 2 parts"), std::string::npos);
  }
}

TEST_F(Split, MissingPartsAreNamed) {
  write(first, {.number = 0, .tensor = "a"});
  expect_refused(first, {first, "part 1 of 2", "missing: 'm-00002-of-00002.gguf'"});
  write("n-00007-of-00900.gguf", {.number = 6, .count = 900, .tensor = "a"});
  expect_refused("n-00007-of-00900.gguf", {"part 7 of 900", "'n-00001-of-00900.gguf', 'n-00002-of-00900.gguf'", "and 895 more"});
}

TEST_F(Split, ANameThatContradictsTheHeaderIsAnError) {
  write("whole.gguf", {.number = 1, .tensor = "a"});
  expect_refused("whole.gguf", {"part 2 of 2", "'-00002-of-00002.gguf'"});
  write(first, {.number = 1, .tensor = "a"});
  expect_refused(first, {"header says part 2 of 2", "name says part 1 of 2"});
  write(first, {.number = 0, .count = 3, .tensor = "a"});
  expect_refused(first, {"header says part 1 of 3", "name says part 1 of 2"});
  for (const char* name : {"-00001-of-00002.gguf", "m-0000x-of-00002.gguf", "m-00001-of-0002.gguf", "m-+0001-of-00002.gguf"}) {
    write(name, {.number = 0, .tensor = "a"});
    expect_refused(name, {"does not end with '-00001-of-00002.gguf'"});
  }
  write_bytes(folder / first, file({}, {entry("a", {4}, 0, 0)}, std::string(16, '\0')));
  expect_refused(first, {"name says part 1 of 2", "no split.count"});
  write(first, {.number = 0, .count = 0, .tensor = "a"});
  expect_refused(first, {"name says part 1 of 2", "has split.count 0"});
}

TEST_F(Split, AModelInOneFileNeedsNoName) {
  write("merged.gguf", {.number = 0, .count = 0, .tensors = 90, .tensor = "a"});  // as gguf-split --merge leaves it
  EXPECT_EQ(open_model(folder / "merged.gguf")->tensors().size(), 1u);
  write("one.gguf", {.number = 0, .count = 1, .tensors = 1, .tensor = "a"});
  EXPECT_EQ(open_model(folder / "one.gguf")->tensors().size(), 1u);
  EXPECT_TRUE(source_remarks(*open_model(folder / "one.gguf")).empty());
  write("one.gguf", {.number = 0, .count = 1, .tensors = 2, .tensor = "a"});
  expect_refused("one.gguf", {"split.tensors.count is 2", "it has 1 tensor"});
  write_bytes(folder / "m-00001-of-00001.gguf", file({}, {entry("a", {4}, 0, 0)}, std::string(16, '\0')));
  EXPECT_EQ(open_model(folder / "m-00001-of-00001.gguf")->tensors().size(), 1u);
}

TEST_F(Split, AbsurdCountsAndNumbersAreErrors) {
  for (const std::uint32_t count : {1001u, 65535u, std::numeric_limits<std::uint32_t>::max()}) {
    write(first, {.number = 0, .count = count, .tensor = "a"});
    expect_refused(first, {"split.count is " + std::to_string(count), "at most 1000"});
  }
  write(first, {.number = 2, .tensor = "a"});
  expect_refused(first, {"split.no is 2", "split.count is 2"});
  write("m.gguf", {.number = 3, .count = 0, .tensor = "a"});
  expect_refused("m.gguf", {"split.no is 3", "split.count is 0"});
  write_bytes(folder / "m.gguf", file({key("split.no", 1u)}, {}, ""));
  expect_refused("m.gguf", {"split.no 1", "no split.count"});
  write_bytes(folder / "m.gguf", file({key("split.count", 2u)}, {}, ""));
  expect_refused("m.gguf", {"split.count 2", "no split.no"});
}

TEST_F(Split, PartsThatDisagreeAreErrorsThatNameTheFile) {
  write(first, {.number = 0, .tensor = "a"});
  write(second, {.number = 0, .tensor = "b"});
  expect_refused(first, {second, "split.no is 0, expected 1"});
  write(second, {.number = 1, .count = 3, .tensor = "b"});
  expect_refused(first, {second, "split.count is 3, expected 2"});
  write(second, {.number = 1, .tensors = 3, .tensor = "b"});
  expect_refused(first, {second, "split.tensors.count is 3, expected 2"});
  write(second, {.number = 1, .tensor = "b", .architecture = "wan"});
  expect_refused(first, {second, "general.architecture is 'wan', expected 'flux'"});
  write(second, {.number = 1, .tensor = "a"});
  expect_refused(first, {second, "tensor 'a' is also in", first});
  write_bytes(folder / second, file({}, {entry("b", {4}, 0, 0)}, std::string(16, '\0')));
  expect_refused(first, {second, "split.count is missing, expected 2"});
  write_bytes(folder / second, "GGUF");
  expect_refused(first, {second, "cut short"});
}

TEST_F(Split, TheNumberOfTensorsMustBeThatOfAllParts) {
  write(first, {.number = 0, .tensors = 3, .tensor = "a"});
  write(second, {.number = 1, .tensors = 3, .tensor = "b"});
  expect_refused(second, {"split.tensors.count is 3", "all 2 parts together have 2 tensors", "incomplete"});
}

TEST_F(Split, ShapesOfTheFirstPartAreForTensorsOfAll) {
  write_bytes(folder / first, file({key("split.no", 0u), key("split.count", 2u),
                                    text("comfy.gguf.orig_shape.b") + number<std::uint32_t>(9) + number<std::uint32_t>(5) +
                                        number<std::uint64_t>(2) + number<std::int32_t>(2) + number<std::int32_t>(2)},
                                   {}, ""));
  write(second, {.number = 1, .tensor = "b"});
  expect_refused(first, {"split.tensors.count is 2", "have 1 tensor"});
  write(second, {.number = 1, .tensors = 1, .tensor = "b"});
  EXPECT_EQ(open_model(folder / first)->tensors()[0].shape, (std::vector<std::int64_t>{2, 2}));
}

TEST_F(Split, AShapeThatDoesNotFitIsAnErrorOfThePartThatHoldsTheTensor) {
  write_bytes(folder / first, file({key("split.no", 0u), key("split.count", 2u),
                                    text("comfy.gguf.orig_shape.b") + number<std::uint32_t>(9) + number<std::uint32_t>(5) +
                                        number<std::uint64_t>(1) + number<std::int32_t>(5)},
                                   {entry("a", {4}, 0, 0)}, std::string(16, '\0')));
  write(second, {.number = 1, .tensor = "b"});
  for (const std::string& name : {first, second}) {
    const qmill::Error error = qmill::testing::error_of([&] { open_model(folder / name); });
    const std::string where = "'" + (folder / second).string() + "': tensor 'b': ";
    EXPECT_TRUE(std::string_view(error.what()).starts_with(where)) << error.what();
  }
}

TEST_F(Split, APartThatIsAGitLfsPointerIsSaid) {
  write(first, {.number = 0, .tensor = "a"});
  write_bytes(folder / second, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  expect_refused(first, {second, "Git LFS pointer"});
}

}  // namespace
