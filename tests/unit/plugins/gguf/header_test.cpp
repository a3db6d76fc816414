#include <header.h>

#include "gguf_bytes.h"

#include <expect_error.h>

#include <gmock/gmock.h>

#include <limits>

using namespace gguf;
using namespace gguf_test;
using qmill::DType;
using qmill::ErrorKind;
using qmill::TensorInfo;
using qmill::testing::expect_error;

namespace {

// Reads `bytes` as the start of a file of `size` bytes, the rest of which are zeros; counts what is asked for.
struct FakeFile {
  explicit FakeFile(std::string content) : bytes(std::move(content)), size(bytes.size()) {}
  FakeFile(std::string content, std::uint64_t file_size) : bytes(std::move(content)), size(file_size) {}

  Header header() {
    return parse_header(size, [this](std::uint64_t offset, std::span<std::byte> out) {
      ASSERT_LE(offset, size);
      ASSERT_LE(out.size(), size - offset);
      read += out.size();
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::byte(offset + i < bytes.size() ? bytes[offset + i] : 0);
    });
  }

  std::string bytes;
  std::uint64_t size;
  std::uint64_t read = 0;
};

Header parse(const std::string& bytes) { return FakeFile(bytes).header(); }

void expect_rejected(const std::string& bytes, std::initializer_list<std::string_view> parts, ErrorKind kind = ErrorKind::input) {
  expect_error(kind, parts, [&] { parse(bytes); });
}

std::string pair(const std::string& key, std::uint32_t type, const std::string& value) { return text(key) + number(type) + value; }

std::string array(std::uint32_t type, std::uint64_t count, const std::string& items) { return number(type) + number(count) + items; }

const std::string kData(256, '\1');

TEST(Header, DimensionsAreReversedAndTensorsStandInTheOrderOfTheirBytes) {
  const std::string bytes = file({}, {entry("b", {4, 3}, 1, 64), entry("a", {5}, 0, 0), entry("c", {2, 3, 1, 2}, 30, 96)}, kData);
  const Header header = parse(bytes);
  ASSERT_EQ(header.entries.size(), 3u);
  const std::uint64_t start = bytes.size() - kData.size();
  EXPECT_EQ(header.entries[0].info, (TensorInfo{"a", DType::f32, {5}}));
  EXPECT_EQ(header.entries[0].offset, start);
  EXPECT_EQ(header.entries[1].info, (TensorInfo{"b", DType::f16, {3, 4}}));
  EXPECT_EQ(header.entries[1].offset, start + 64);
  EXPECT_EQ(header.entries[1].bytes, 24u);
  EXPECT_EQ(header.entries[2].info, (TensorInfo{"c", DType::bf16, {2, 1, 3, 2}}));
}

TEST(Header, TensorsMayHaveNoneToEightDimensions) {
  const std::vector<std::string> entries = {entry("scalar", {}, 0, 0), entry("video", {2, 2, 1, 3, 4}, 1, 32),
                                            entry("most", {2, 1, 1, 1, 1, 1, 1, 3}, 0, 128)};
  const Header header = parse(file({}, entries, kData));
  EXPECT_EQ(header.entries[0].info, (TensorInfo{"scalar", DType::f32, {}}));
  EXPECT_EQ(header.entries[0].bytes, 4u);
  EXPECT_EQ(header.entries[1].info, (TensorInfo{"video", DType::f16, {4, 3, 1, 2, 2}}));
  EXPECT_EQ(header.entries[2].info, (TensorInfo{"most", DType::f32, {3, 1, 1, 1, 1, 1, 1, 2}}));
}

TEST(Header, BlocksOfCodesArePresentedAsF32) {
  struct Blocks {
    std::uint32_t number;
    const char* name;
    std::uint64_t values;
    std::uint64_t bytes;
  };
  const Blocks types[] = {{2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
                          {8, "Q8_0", 32, 34},    {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},
                          {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210}, {20, "IQ4_NL", 32, 18}, {23, "IQ4_XS", 256, 136}};
  for (const Blocks& each : types) {
    const Header header = parse(file({}, {entry("a", {2 * each.values, 3}, each.number, 0)}, std::string(6 * each.bytes, '\0')));
    EXPECT_EQ(header.entries[0].info, (TensorInfo{"a", DType::f32, {3, static_cast<std::int64_t>(2 * each.values)}}));
    EXPECT_EQ(header.entries[0].type->name, each.name);
    EXPECT_NE(header.entries[0].type->decode, nullptr);
    EXPECT_EQ(header.entries[0].bytes, 6 * each.bytes);
    expect_rejected(file({}, {entry("t", {each.values / 2, 2}, each.number, 0)}, kData), {"'t'", each.name, "multiple of"});
  }
}

TEST(Header, PlainTypesAreTheBytesOfTheFile) {
  const std::pair<std::uint32_t, DType> types[] = {{0, DType::f32},  {1, DType::f16},  {24, DType::i8},  {25, DType::i16},
                                                   {26, DType::i32}, {27, DType::i64}, {28, DType::f64}, {30, DType::bf16}};
  for (const auto& [number, dtype] : types) {
    const Header header = parse(file({}, {entry("a", {3, 2}, number, 0)}, kData));
    EXPECT_EQ(header.entries[0].info, (TensorInfo{"a", dtype, {2, 3}}));
    EXPECT_EQ(header.entries[0].bytes, static_cast<std::uint64_t>(header.entries[0].info.bytes()));
    EXPECT_EQ(header.entries[0].type->decode, nullptr);
  }
}

TEST(Header, Versions2And3AreRead) {
  EXPECT_EQ(parse(file({}, {entry("a", {1}, 0, 0)}, kData, 2)).entries.size(), 1u);
  expect_rejected(file({}, {}, "", 1), {"version 1", "2 and 3"}, ErrorKind::unsupported);
  expect_rejected(file({}, {}, "", 4), {"version 4"}, ErrorKind::unsupported);
  expect_rejected(file({}, {}, "", 0x03000000), {"big-endian"}, ErrorKind::unsupported);
}

TEST(Header, ScalarsBecomeMetadataAndArraysAreLeftOut) {
  const Header header = parse(file(
      {
          pair("u8", 0, number<std::uint8_t>(255)),
          pair("i8", 1, number<std::int8_t>(-1)),
          pair("u16", 2, number<std::uint16_t>(65535)),
          pair("i16", 3, number<std::int16_t>(-2)),
          pair("u32", 4, number<std::uint32_t>(4000000000u)),
          pair("i32", 5, number<std::int32_t>(-3)),
          pair("f32", 6, number<float>(1e-5f)),
          pair("bool", 7, number<std::uint8_t>(1)),
          pair("text", 8, text("Grün")),
          pair("list", 9, array(8, 2, text("a") + text("bc"))),
          pair("numbers", 9, array(5, 3, std::string(12, '\0'))),
          pair("u64", 10, number<std::uint64_t>(std::numeric_limits<std::uint64_t>::max())),
          pair("i64", 11, number<std::int64_t>(-4)),
          pair("f64", 12, number<double>(0.1)),
      },
      {}, ""));
  const std::map<std::string, std::string> expected = {
      {"u8", "255"},    {"i8", "-1"},     {"u16", "65535"}, {"i16", "-2"}, {"u32", "4000000000"},           {"i32", "-3"},
      {"f32", "1e-05"}, {"bool", "true"}, {"text", "Grün"}, {"i64", "-4"}, {"u64", "18446744073709551615"}, {"f64", "0.1"}};
  EXPECT_EQ(header.keys.metadata, expected);
}

TEST(Header, KeysOfTheContainerAreNotMetadata) {
  const Header header =
      parse(file({pair("split.no", 2, number<std::uint16_t>(1)), pair("split.count", 4, number<std::uint32_t>(3)),
                  pair("split.tensors.count", 5, number<std::int32_t>(7)),
                  pair("comfy.gguf.orig_shape.a.weight", 9, array(5, 2, number<std::int32_t>(64) + number<std::int32_t>(9)))},
                 {}, ""));
  EXPECT_TRUE(header.keys.metadata.empty());
  EXPECT_EQ(header.keys.split.number, 1u);
  EXPECT_EQ(header.keys.split.count, 3u);
  EXPECT_EQ(header.keys.split.tensors, 7u);
  EXPECT_EQ(header.keys.original_shapes, (std::map<std::string, Shape>{{"a.weight", {64, 9}}}));
}

TEST(Header, KeysOfTheContainerThatMakeNoSenseAreErrors) {
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) {
    expect_rejected(file({pair(key, 5, number<std::int32_t>(-1))}, {}, ""), {key, "is -1"});
    expect_rejected(file({pair(key, 8, text("two"))}, {}, ""), {key, "is two"});
    expect_rejected(file({pair(key, 6, number<float>(1.0f))}, {}, ""), {key, "expected a whole number"});
  }
  const std::string key = "comfy.gguf.orig_shape.t";
  expect_rejected(file({pair(key, 4, number<std::uint32_t>(4))}, {}, ""), {key, "one value"});
  expect_rejected(file({pair(key, 9, array(11, 1, number<std::int64_t>(4)))}, {}, ""), {key, "32-bit"});
  expect_rejected(file({pair(key, 9, array(5, 0, ""))}, {}, ""), {key, "0 dimensions", "1 to 8"});
  expect_rejected(file({pair(key, 9, array(5, std::numeric_limits<std::uint64_t>::max(), ""))}, {}, ""), {key, "dimensions"});
  expect_rejected(file({pair(key, 9, array(5, 1, number<std::int32_t>(-4)))}, {}, ""), {key, "-4"});
}

TEST(Header, TheAlignmentIsThatOfTheHeader) {
  const std::string bytes =
      file({pair("general.alignment", 4, number<std::uint32_t>(64))}, {entry("a", {1}, 0, 0), entry("b", {1}, 0, 64)}, kData, 3, 64);
  const Header header = parse(bytes);
  EXPECT_EQ(header.entries[1].offset, bytes.size() - kData.size() + 64);
  EXPECT_TRUE(header.keys.metadata.empty());
  for (const std::uint32_t bad : {0u, 3u, 48u, 1u << 21})
    expect_rejected(file({pair("general.alignment", 4, number(bad))}, {}, ""), {"general.alignment", std::to_string(bad)});
  expect_rejected(file({pair("general.alignment", 10, number<std::uint64_t>(32))}, {}, ""), {"general.alignment"});
  expect_rejected(file({pair("general.alignment", 8, text("32"))}, {}, ""), {"general.alignment"});
}

TEST(Header, EveryPrefixOfAFileIsAnError) {
  const std::string bytes =
      file({pair("k", 8, text("v")), pair("l", 9, array(8, 1, text("x")))}, {entry("a", {4}, 0, 0)}, std::string(16, '\0'));
  ASSERT_EQ(parse(bytes).entries.size(), 1u);
  for (std::size_t length = 0; length < bytes.size(); ++length) expect_error(ErrorKind::input, {}, [&] { parse(bytes.substr(0, length)); });
}

TEST(Header, OtherFilesAreRefused) { expect_rejected("GGML" + std::string(100, '\0'), {"'GGUF'"}); }

TEST(Header, AbsurdCountsAndLengthsCostNothing) {
  const std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  const std::string start = "GGUF" + number<std::uint32_t>(3);
  const std::uint64_t file_size = std::uint64_t{1} << 40;  // a hole
  const auto reject = [&](const std::string& bytes, std::initializer_list<std::string_view> parts) {
    FakeFile fake(bytes, file_size);
    expect_error(ErrorKind::input, parts, [&] { fake.header(); });
    EXPECT_LE(fake.read, 1u << 20);
  };
  reject(start + number(huge) + number<std::uint64_t>(0), {"18446744073709551615 tensors"});
  reject(start + number<std::uint64_t>(0) + number(huge), {"18446744073709551615 keys"});
  const std::string one_key = start + number<std::uint64_t>(0) + number<std::uint64_t>(1);
  reject(one_key + number(huge), {"18446744073709551615 bytes", "allowed are 65535"});
  reject(one_key + pair("k", 8, number(huge)), {"the value of 'k'", "18446744073709551615"});
  reject(one_key + pair("k", 9, array(4, huge, "")), {"the value of 'k'", "18446744073709551615 values"});
  reject(one_key + pair("k", 9, array(8, huge, "")), {"18446744073709551615 texts"});
  reject(one_key + pair("k", 9, array(8, 1, number(huge))), {"the value of 'k'"});
  reject(one_key + pair("k", 8, number<std::uint64_t>(kMaxHeaderBytes)), {"beyond the first"});
}

TEST(Header, KeysThatAreTwiceNestedOrOfUnknownTypesAreErrors) {
  const std::string one = pair("k", 0, number<std::uint8_t>(1));
  expect_rejected(file({one, one}, {}, ""), {"'k' twice"});
  expect_rejected(file({one, pair("k", 9, array(0, 0, ""))}, {}, ""), {"'k' twice"});
  expect_rejected(file({pair("k", 9, array(0, 0, "")), one}, {}, ""), {"'k' twice"});
  const std::string count = pair("split.count", 4, number<std::uint32_t>(1));
  expect_rejected(file({count, count}, {}, ""), {"'split.count' twice"});
  const std::string shape = pair("comfy.gguf.orig_shape.t", 9, array(5, 1, number<std::int32_t>(1)));
  expect_rejected(file({shape, shape}, {}, ""), {"'comfy.gguf.orig_shape.t' twice"});
  expect_rejected(file({pair("k", 9, array(9, 1, array(0, 0, "")))}, {}, ""), {"'k'", "array of arrays"});
  expect_rejected(file({pair("k", 13, "")}, {}, kData), {"'k'", "type 13"});
  expect_rejected(file({pair("k", 9, array(77, 0, ""))}, {}, kData), {"'k'", "type 77"});
  expect_rejected(file({pair("k", 7, number<std::uint8_t>(2))}, {}, ""), {"'k'", "truth value of 2"});
  expect_rejected(file({pair("k", 8, text("\xff"))}, {}, ""), {"'k'", "not UTF-8"});
  expect_rejected(file({}, {entry("\xc3", {1}, 0, 0)}, kData), {"not UTF-8"});
}

TEST(Header, TensorsOfOtherTypesAreNamed) {
  expect_rejected(file({}, {entry("t", {256}, 16, 0)}, kData), {"'t'", "IQ2_XXS", "F32, F16, Q4_0", "IQ4_XS", "and BF16", "original"},
                  ErrorKind::unsupported);
  expect_rejected(file({}, {entry("t", {256}, 39, 0)}, kData), {"'t'", "MXFP4"}, ErrorKind::unsupported);
  expect_rejected(file({}, {entry("t", {256}, 4, 0)}, kData), {"'t'", "unknown type 4"}, ErrorKind::unsupported);
  expect_rejected(file({}, {entry("t", {256}, 4000, 0)}, kData), {"'t'", "unknown type 4000"}, ErrorKind::unsupported);
  expect_rejected(file({}, {entry("t", {48}, 8, 0)}, kData), {"'t'", "48", "multiple of 32"});
}

TEST(Header, ShapesThatAreNoneAreErrors) {
  expect_rejected(file({}, {entry("t", {}, 8, 0)}, kData), {"'t'", "Q8_0 with rows of 1"});
  expect_rejected(file({}, {entry("t", {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 0)}, kData), {"'t'", "9 dimensions", "at most 8"});
  const std::uint64_t half = std::uint64_t{1} << 32;
  expect_rejected(file({}, {entry("t", {half, half}, 0, 0)}, kData), {"'t'", "too large"});
  expect_rejected(file({}, {entry("t", {half, 0, half}, 0, 0)}, kData), {"'t'", "too large"});
  expect_rejected(file({}, {entry("t", {std::numeric_limits<std::uint64_t>::max()}, 0, 0)}, kData), {"'t'", "too large"});
}

TEST(Header, TensorsWithoutValuesTakeNoBytes) {
  const Header header = parse(file({}, {entry("t", {0, 4}, 0, 1 << 30), entry("u", {1}, 0, 0)}, kData));
  ASSERT_EQ(header.entries.size(), 2u);
  for (const Entry& each : header.entries) EXPECT_EQ(each.bytes, each.info.name == "t" ? 0u : 4u);
}

TEST(Header, PlacesThatDoNotFitAreErrors) {
  expect_rejected(file({}, {entry("t", {1}, 0, 4)}, kData), {"'t'", "multiple of 32"});
  expect_rejected(file({}, {entry("t", {65}, 0, 0)}, kData), {"'t'", "260 bytes", "the file has 256"});
  expect_rejected(file({}, {entry("t", {1}, 0, 256)}, kData), {"'t'"});
  expect_rejected(file({}, {entry("t", {1}, 0, std::uint64_t{0} - 32)}, kData), {"'t'"});
  expect_rejected(file({}, {entry("t", {9}, 0, 0), entry("u", {1}, 0, 32)}, kData), {"'t' and 'u' overlap"});
  expect_rejected(file({}, {entry("t", {1}, 0, 0), entry("t", {1}, 0, 32)}, kData), {"'t'", "twice"});
}

}  // namespace
