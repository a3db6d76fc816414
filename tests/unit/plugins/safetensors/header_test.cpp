#include <header.h>

#include <qmill/error.h>

#include <gmock/gmock.h>

#include <limits>

using namespace safetensors;
using qmill::DType;
using qmill::Error;
using qmill::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

namespace {

// `json` followed by `data_bytes` bytes of data.
Header parse(std::string_view json, std::uint64_t data_bytes) { return parse_header(json, 8 + json.size() + data_bytes); }

template <class Call>
std::string rejection(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::input);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

std::string rejected(std::string_view json, std::uint64_t data_bytes) {
  return rejection([&] { parse(json, data_bytes); });
}

std::string rejected_length(std::string_view first_bytes, std::uint64_t file_size) {
  return rejection([&] { header_length(first_bytes, file_size); });
}

std::string length_bytes(std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes;
}

// A tensor 'a' with this entry.
std::string entry(std::string_view fields) { return R"({"a":{)" + std::string(fields) + "}}"; }

TEST(HeaderLength, ItIsLittleEndian) {
  EXPECT_EQ(header_length(length_bytes(0x0203), 1000), 0x0203u);
  EXPECT_EQ(header_length(length_bytes(0), 8), 0u);
  EXPECT_EQ(header_length(length_bytes(92), 100), 92u);
}

TEST(HeaderLength, AFileOfLessThan8BytesIsTooShort) {
  EXPECT_THAT(rejected_length("", 0), HasSubstr("it has 0 bytes, expected at least 8"));
  EXPECT_THAT(rejected_length("\x02\0\0\0\0\0\0", 7), HasSubstr("expected at least 8"));
}

TEST(HeaderLength, AnAbsurdLengthIsRefusedWithBothNumbers) {
  EXPECT_THAT(rejected_length(length_bytes(100'000'001), 200'000'000),
              AllOf(HasSubstr("100000001 bytes"), HasSubstr("allowed are 100000000")));
  EXPECT_THAT(rejected_length(length_bytes(std::numeric_limits<std::uint64_t>::max()), 100), HasSubstr("18446744073709551615"));
  EXPECT_THAT(rejected_length(length_bytes(1ull << 63), 100), HasSubstr("9223372036854775808"));
}

TEST(HeaderLength, AHeaderBeyondTheEndOfTheFileIsRefused) {
  EXPECT_THAT(rejected_length(length_bytes(93), 100), AllOf(HasSubstr("93 bytes"), HasSubstr("the file has 100")));
  EXPECT_THAT(rejected_length(length_bytes(1), 8), HasSubstr("the file has 8"));
}

TEST(HeaderLength, AGitLfsPointerIsRecognised) {
}

TEST(Header, TensorsStandInTheOrderOfTheirBytes) {
  const std::string json =
      R"({"z":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"a":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"__metadata__":{"k":"v"}})";
  const Header header = parse(json, 16);
  ASSERT_EQ(header.entries.size(), 2u);
  EXPECT_EQ(header.entries[0].info, (qmill::TensorInfo{"z", DType::bf16, {2, 3}}));
  EXPECT_EQ(header.entries[0].offset, 8 + json.size());
  EXPECT_EQ(header.entries[1].info, (qmill::TensorInfo{"a", DType::f32, {}}));
  EXPECT_EQ(header.entries[1].offset, 8 + json.size() + 12);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"k", "v"}}));
}

TEST(Header, NoTensorsAndMetadataAloneAreValid) {
  EXPECT_TRUE(parse("{}", 0).entries.empty());
  EXPECT_TRUE(parse("{}      ", 0).entries.empty());  // padded, as writers do
  const Header header = parse(R"({"__metadata__":{"format":"pt"}})", 0);
  EXPECT_TRUE(header.entries.empty());
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(Header, TensorsWithoutBytesMayStandAnywhere) {
  const Header header = parse(
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},"c":{"dtype":"I8","shape":[5,0],"data_offsets":[0,0]}})",
      4);
  ASSERT_EQ(header.entries.size(), 3u);
  EXPECT_EQ(header.entries[0].info.name, "c");
  EXPECT_EQ(header.entries[2].info.name, "a");
}

TEST(Header, TypesBelowAByteAreCountedInBits) {
  EXPECT_EQ(parse(entry(R"("dtype":"F4","shape":[6],"data_offsets":[0,3])"), 3).entries[0].info.dtype, DType::f4);
  EXPECT_EQ(parse(entry(R"("dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3])"), 3).entries[0].info.bytes(), 3);
  EXPECT_THAT(rejected(entry(R"("dtype":"F4","shape":[5],"data_offsets":[0,3])"), 3), AllOf(HasSubstr("'a'"), HasSubstr("whole bytes")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F6_E3M2","shape":[3],"data_offsets":[0,3])"), 3), HasSubstr("whole bytes"));
}

TEST(Header, WhatIsNotJsonIsRefusedWithThePlace) {
  EXPECT_THAT(rejected("", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected("{", 0), HasSubstr("not valid JSON at byte 2"));
  EXPECT_THAT(rejected("{} x", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected(R"({"a":})", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected("{\"a\n\":1}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected(std::string_view("{}\0", 3), 0), HasSubstr("not valid JSON at byte"));
}

TEST(Header, InvalidUtf8IsRefused) {
  EXPECT_THAT(rejected("{\"\xff\":{}}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected("{\"\xc3\":{}}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected("{\"\xed\xa0\x80\":{}}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected(R"({"\ud800":{}})", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(rejected("{\"__metadata__\":{\"k\":\"\xff\"}}", 0), HasSubstr("not valid JSON at byte"));
}

TEST(Header, AnythingButAnObjectIsRefused) {
  EXPECT_THAT(rejected("[]", 0), AllOf(HasSubstr("array"), HasSubstr("expected an object")));
  EXPECT_THAT(rejected("null", 0), HasSubstr("expected an object"));
  EXPECT_THAT(rejected("7", 0), HasSubstr("expected an object"));
  EXPECT_THAT(rejected("\"a\"", 0), HasSubstr("expected an object"));
}

TEST(Header, DeepNestingIsRefusedBeforeItIsStored) {
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), 4), HasSubstr("nested deeper than 3"));
  EXPECT_THAT(rejected(R"({"a":)" + std::string(1'000'000, '['), 0), HasSubstr("nested deeper than 3"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  EXPECT_THAT(rejected(objects, 0), HasSubstr("nested deeper than 3"));
}

TEST(Header, ANameThatStandsTwiceIsRefused) {
  const std::string tensor = R"("a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(rejected("{" + tensor + "," + tensor + "}", 0), HasSubstr("names 'a' twice"));
  EXPECT_THAT(rejected(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("names '__metadata__' twice"));
  EXPECT_THAT(
      rejected(R"({"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})", 0),
      HasSubstr("names 'a' twice"));
}

TEST(Header, NumbersBeyondEveryTypeAreRefused) {
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[1e999],"data_offsets":[0,4])"), 4), HasSubstr("too large"));
  EXPECT_THAT(rejected("-1e999", 0), HasSubstr("too large"));
}

TEST(Header, EveryFieldMustBeThere) {
  EXPECT_THAT(rejected(R"({"a":7})", 0), AllOf(HasSubstr("'a'"), HasSubstr("not an object")));
  EXPECT_THAT(rejected(entry(R"("shape":[],"data_offsets":[0,4])"), 4), AllOf(HasSubstr("'a'"), HasSubstr("no 'dtype'")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","data_offsets":[0,4])"), 4), AllOf(HasSubstr("'a'"), HasSubstr("no 'shape'")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[])"), 4), AllOf(HasSubstr("'a'"), HasSubstr("no 'data_offsets'")));
}

TEST(Header, AnUnknownTypeIsNamed) {
  for (const char* dtype : {R"("F33")", R"("f32")", R"("")", "7", "null", R"(["F32"])"})
    EXPECT_THAT(rejected(entry(R"("dtype":)" + std::string(dtype) + R"(,"shape":[],"data_offsets":[0,4])"), 4),
                AllOf(HasSubstr("'a'"), HasSubstr(std::string("its dtype ") + dtype + " is unknown")));
}

TEST(Header, ADimensionIsAWholeNumberOfAtMost63Bits) {
  for (const char* dimension : {"-1", "1.0", "1.5", "1e0", "\"1\"", "null", "true"})
    EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[)" + std::string(dimension) + R"(],"data_offsets":[0,4])"), 4),
                AllOf(HasSubstr("'a'"), HasSubstr("a dimension is"), HasSubstr("expected a whole number")))
        << dimension;
  EXPECT_THAT(rejected(entry(R"("dtype":"I8","shape":[9223372036854775808],"data_offsets":[0,4])"), 4),
              AllOf(HasSubstr("'a'"), HasSubstr("2^63")));
  EXPECT_THAT(rejected(entry(R"("dtype":"I8","shape":[18446744073709551616],"data_offsets":[0,4])"), 4),
              HasSubstr("expected a whole number"));
}

TEST(Header, AShapeIsAListOfAtMost64Numbers) {
  for (const char* shape : {"4", "null", "{}", "\"4\""})
    EXPECT_THAT(rejected(entry(R"("dtype":"I8","shape":)" + std::string(shape) + R"(,"data_offsets":[0,4])"), 4),
                AllOf(HasSubstr("'a'"), HasSubstr("not a list")));
  std::string ones = "1";
  for (int i = 1; i < 64; ++i) ones += ",1";
  EXPECT_EQ(parse(entry(R"("dtype":"I8","shape":[)" + ones + R"(],"data_offsets":[0,1])"), 1).entries[0].info.shape.size(), 64u);
  EXPECT_THAT(rejected(entry(R"("dtype":"I8","shape":[)" + ones + R"(,1],"data_offsets":[0,1])"), 1), HasSubstr("at most 64"));
}

TEST(Header, ProductsThatOverflowAreRefused) {
  for (const char* shape :
       {"4294967296,4294967296", "9223372036854775807,2", "9223372036854775807", "3037000500,3037000500", "65536,65536,65536,65536",
        "0,9223372036854775807,9223372036854775807", "9223372036854775807,9223372036854775807,0"})
    EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[)" + std::string(shape) + R"(],"data_offsets":[0,0])"), 0),
                AllOf(HasSubstr("'a'"), HasSubstr("beyond 2^63 bits")))
        << shape;
}

TEST(Header, OffsetsAreTwoWholeNumbersThatDoNotGoBackwards) {
  for (const char* offsets : {"[0]", "[0,4,8]", "[]", "4", "null", "{}"})
    EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[],"data_offsets":)" + std::string(offsets)), 4),
                AllOf(HasSubstr("'a'"), HasSubstr("not two numbers")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[],"data_offsets":[-4,0])"), 4),
              AllOf(HasSubstr("'a'"), HasSubstr("the start of its data is -4")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[],"data_offsets":[0,4.0])"), 4),
              AllOf(HasSubstr("'a'"), HasSubstr("the end of its data is 4.0")));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[],"data_offsets":[4,0])"), 4),
              AllOf(HasSubstr("'a'"), HasSubstr("goes from 4 to 0")));
}

TEST(Header, DataBeyondTheEndOfTheFileIsRefused) {
  const std::string json = entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])");
  EXPECT_THAT(rejected(json, 7), AllOf(HasSubstr("'a'"), HasSubstr("ends at byte " + std::to_string(16 + json.size())),
                                       HasSubstr("the file at " + std::to_string(15 + json.size()))));
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[2],"data_offsets":[18446744073709551607,18446744073709551615])"), 8),
              AllOf(HasSubstr("'a'"), HasSubstr("18446744073709551615")));
}

TEST(Header, TheBytesMustBeThoseOfTypeAndShape) {
  EXPECT_THAT(rejected(entry(R"("dtype":"F32","shape":[2,3],"data_offsets":[0,23])"), 23),
              AllOf(HasSubstr("'a'"), HasSubstr("it has 23 bytes, expected 24 for F32 2 x 3")));
  EXPECT_THAT(rejected(entry(R"("dtype":"BF16","shape":[],"data_offsets":[0,0])"), 0),
              HasSubstr("it has 0 bytes, expected 2 for BF16 scalar"));
  EXPECT_THAT(rejected(entry(R"("dtype":"BF16","shape":[0],"data_offsets":[0,2])"), 2), HasSubstr("it has 2 bytes, expected 0"));
}

std::string two(std::string_view first, std::string_view second) {
  return R"({"a":{"dtype":"I8","shape":[4],"data_offsets":)" + std::string(first) + R"(},"b":{"dtype":"I8","shape":[4],"data_offsets":)" +
         std::string(second) + "}}";
}

TEST(Header, TensorsThatOverlapAreRefused) {
  EXPECT_THAT(rejected(two("[0,4]", "[3,7]"), 7), AllOf(HasSubstr("'b'"), HasSubstr("overlap")));
  EXPECT_THAT(rejected(two("[0,4]", "[0,4]"), 4), AllOf(HasSubstr("'b'"), HasSubstr("overlap")));
}

TEST(Header, AGapBetweenTensorsIsRefused) {
  EXPECT_THAT(rejected(two("[0,4]", "[5,9]"), 9), AllOf(HasSubstr("'b'"), HasSubstr("gap")));
  EXPECT_THAT(rejected(two("[5,9]", "[1,5]"), 9), AllOf(HasSubstr("'b'"), HasSubstr("gap")));  // before the first
}

TEST(Header, TensorsThatDoNotFillTheFileAreRefused) {
  const std::string json = two("[0,4]", "[4,8]");
  EXPECT_THAT(rejected(json, 9), AllOf(HasSubstr("the tensors end at byte " + std::to_string(16 + json.size())),
                                       HasSubstr("the file at " + std::to_string(17 + json.size()))));
  EXPECT_THAT(rejected("{}", 1), HasSubstr("the tensors end at byte 10, the file at 11"));
}

TEST(Header, MetadataAreTexts) {
  EXPECT_THAT(rejected(R"({"__metadata__":[]})", 0), HasSubstr("__metadata__ is not an object"));
  EXPECT_TRUE(parse_header(R"({"__metadata__":null})", 8 + 21).metadata.empty());
  for (const char* value : {"7", "null", "true", "{}", "[]"})
    EXPECT_THAT(rejected(R"({"__metadata__":{"key":)" + std::string(value) + "}}", 0), HasSubstr("'key' is not a text"));
}

// Whatever one changed byte makes of a header, it is a header or an Error(input).
TEST(Header, NoChangedByteEscapes) {
  const std::string json =
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]},"é":{"dtype":"U8","shape":[],"data_offsets":[3,4]}})";
  ASSERT_EQ(parse(json, 4).entries.size(), 2u);
  int refused = 0;
  for (std::size_t i = 0; i < json.size(); ++i)
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = json;
      changed[i] = static_cast<char>(byte);
      try {
        parse(changed, 4);
      } catch (const Error& error) {
        ASSERT_EQ(error.kind(), ErrorKind::input);
        ++refused;
      }
    }
  EXPECT_GT(refused, 10'000);
}

}  // namespace
