#include "host/tag.h"

#include "plugin_files.h"

#include <cstdlib>
#include <cstring>

namespace qmill {
namespace {

namespace fs = std::filesystem;
using testing::bad_plugin;
using testing::expect_error;
using testing::good_plugin;
using testing::read_bytes;
using testing::TempDir;
using testing::with_tag;
using testing::write_bytes;

template <class Number>
std::string with_number(std::string bytes, std::size_t offset, Number number) {
  return bytes.replace(offset, sizeof number, reinterpret_cast<const char*>(&number), sizeof number);
}

// Fields of the ELF header.
constexpr std::size_t kType = 16, kMachine = 18, kSegmentsAt = 32, kSectionsAt = 40, kSegmentBytes = 54, kSegmentCount = 56,
                      kSectionCount = 60;

void expect_refused(const std::string& bytes, std::initializer_list<std::string_view> parts,
                    std::source_location where = std::source_location::current()) {
  const TempDir dir;
  write_bytes(dir / "p.so", bytes);
  expect_error(
      ErrorKind::plugin, parts, [&] { read_tag(dir / "p.so"); }, where);
}

const std::string kText = "sdk=1.0;torch=2.6;abi=libstdc++-cxx11;build=plain;name=acme";

TEST(ParseTag, EveryFieldIsRead) {
  const PluginTag tag = parse_tag(kText + ";quantizer=acme.nf4;filter=acme");
  EXPECT_EQ(tag.sdk, "1.0");
  EXPECT_EQ(tag.torch, "2.6");
  EXPECT_EQ(tag.abi, "libstdc++-cxx11");
  EXPECT_EQ(tag.build, "plain");
  EXPECT_EQ(tag.name, "acme");
  EXPECT_EQ(tag.offers, (std::vector<std::pair<std::string, std::string>>{{"quantizer", "acme.nf4"}, {"filter", "acme"}}));
}

TEST(ParseTag, KindsOfLaterHostsAreCarriedAlong) { EXPECT_EQ(parse_tag(kText + ";telepathy=yes").offers.at(0).first, "telepathy"); }

TEST(ParseTag, AFieldThatIsMissingIsAnError) {
  for (const std::string field : {"sdk=1.0;", "torch=2.6;", "abi=libstdc++-cxx11;", "build=plain;"}) {
    std::string text = kText;
    text.erase(text.find(field), field.size());
    expect_error(ErrorKind::plugin, {"lacks one of"}, [&] { parse_tag(text); });
  }
  expect_error(ErrorKind::plugin, {"lacks one of"}, [] { parse_tag(""); });
}

TEST(ParseTag, WhatIsNoFieldIsAnError) {
  for (const char* text : {"nonsense", ";", "=", "sdk", "sdk=", "sdk=1.0;;torch=2.6"}) EXPECT_THROW(parse_tag(text), Error) << text;
}

TEST(Mismatch, SaysBothSidesAndNothingWhenAllFits) {
  const PluginTag host = parse_tag(kText);
  struct Case {
    const char* field;
    const char* value;
    const char* sentence;
  };
  const Case cases[] = {
      {"sdk=1.0", "sdk=1.0", ""},
      {"sdk=1.0", "sdk=1.1", "built for SDK 1.1, this program runs 1.0"},
      {"sdk=1.0", "sdk=2.0", "built for SDK 2.0, this program runs 1.0"},
      {"sdk=1.0", "sdk=0.9", "built for SDK 0.9, this program runs 1.0"},
      {"sdk=1.0", "sdk=1", "built for SDK 1, this program runs 1.0"},
      {"sdk=1.0", "sdk=1.0x", "built for SDK 1.0x, this program runs 1.0"},
      {"sdk=1.0", "sdk=1.99999999999999999999", "built for SDK 1.99999999999999999999, this program runs 1.0"},
      {"torch=2.6", "torch=2.4", "built for LibTorch 2.4, this program runs 2.6"},
      {"torch=2.6", "torch=2.60", "built for LibTorch 2.60, this program runs 2.6"},
      {"abi=libstdc++-cxx11", "abi=libc++", "built for the C++ library libc++, this program runs libstdc++-cxx11"},
      {"build=plain", "build=asan", "built for build kind asan, this program runs plain"},
      {"name=acme", "name=other", ""},
  };
  for (const Case& test : cases) {
    std::string text = kText;
    text.replace(text.find(test.field), std::string(test.field).size(), test.value);
    EXPECT_EQ(mismatch(parse_tag(text), host), test.sentence) << test.value;
  }
}

TEST(Mismatch, AnOlderMinorVersionOfTheSdkDoesNotFitEither) {
  EXPECT_EQ(mismatch(parse_tag(kText), parse_tag("sdk=1.7;torch=2.6;abi=libstdc++-cxx11;build=plain;name=host")),
            "built for SDK 1.0, this program runs 1.7");
}

TEST(Mismatch, AllReasonsAreInOneSentence) {
  EXPECT_EQ(mismatch(parse_tag("sdk=9.0;torch=1.0;abi=libc++;build=asan;name=a"), parse_tag(kText)),
            "built for SDK 9.0, this program runs 1.0; built for LibTorch 1.0, this program runs 2.6; "
            "built for the C++ library libc++, this program runs libstdc++-cxx11; built for build kind asan, this program runs plain");
}

TEST(ReadTag, OfAPluginOfThisBuildFitsThisProgram) {
  const PluginTag tag = read_tag(good_plugin("fp16"));
  EXPECT_EQ(tag.name, "fp16");
  EXPECT_EQ(tag.offers, (std::vector<std::pair<std::string, std::string>>{{"quantizer", "fp16"}}));
  EXPECT_EQ(mismatch(tag, own_tag()), "");
}

TEST(ReadTag, SurvivesStripping) {
  const TempDir dir;
  for (const char* plugin : {"rtn", "fp16", "safetensors"}) {
    const fs::path stripped = dir / plugin;
    const std::string command =
        std::string(QMILL_STRIP) + " --strip-all -o '" + stripped.string() + "' '" + good_plugin(plugin).string() + "'";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    ASSERT_LT(fs::file_size(stripped), fs::file_size(good_plugin(plugin)));
    EXPECT_EQ(read_tag(stripped).name, plugin);
  }
}

TEST(ReadTag, AFileThatIsCutShortAnywhereIsRefused) {
  const std::string library = read_bytes(good_plugin("rtn"));
  const TempDir dir;
  std::vector<std::size_t> lengths = {0, 1, 4, 63, 64, 65, library.size() - 1, library.size() - 64};
  for (std::size_t part = 1; part < 100; ++part) lengths.push_back(library.size() * part / 100);
  for (const std::size_t length : lengths) {
    write_bytes(dir / "p.so", library.substr(0, length));
    EXPECT_THROW(read_tag(dir / "p.so"), Error) << length << " of " << library.size();
  }
}

TEST(ReadTag, WhatIsNoLibraryIsRefused) {
  expect_refused("#!/bin/sh\necho I am no library, but my name ends in .so, and I have more than sixty-four bytes\n",
                 {"not a shared library of this system"});
  expect_refused("", {"0 bytes"});
  expect_refused(std::string(100'000, '\0'), {"not a shared library"});
  expect_refused(testing::tag_start() + kText + ";end" + std::string(100, '\0'), {"not a shared library"});
}

TEST(ReadTag, AProgramIsRefused) {
  EXPECT_THROW(read_tag(fs::read_symlink("/proc/self/exe")), Error);
  expect_refused(with_number<std::uint16_t>(read_bytes(good_plugin("rtn")), kType, 2), {"not a shared library"});
}

TEST(ReadTag, TheLibrariesOfTheProgramItselfAreNoPlugins) {
  for (const char* library : {"libqmill_core.so", "libqmill_sdk.so"})
    expect_error(ErrorKind::plugin, {"no qmill tag"}, [&] { read_tag(fs::path(QMILL_TEST_PLUGINS) / "../.." / library); });
}

TEST(ReadTag, ALibraryOfAnotherMachineIsRefusedWithBothNumbers) {
  const std::string library = read_bytes(good_plugin("rtn"));
  expect_refused(with_number<std::uint16_t>(library, kMachine, 0x1234), {"another processor", "4660"});
  expect_refused(with_number<std::uint8_t>(library, 4, 1), {"another processor"});  // 32 bit
  expect_refused(with_number<std::uint8_t>(library, 5, 2), {"another processor"});  // big-endian
}

TEST(ReadTag, AbsurdOffsetsInTheHeaderAreRefused) {
  const std::string library = read_bytes(good_plugin("rtn"));
  for (const std::uint64_t offset :
       {std::uint64_t{1} << 62, ~std::uint64_t{0}, ~std::uint64_t{0} - 63, static_cast<std::uint64_t>(library.size())}) {
    expect_refused(with_number(library, kSectionsAt, offset), {"cut short or damaged"});
    expect_refused(with_number(library, kSegmentsAt, offset), {"cut short or damaged"});
  }
  expect_refused(with_number<std::uint16_t>(library, kSectionCount, 0xffff), {"cut short or damaged"});
  expect_refused(with_number<std::uint16_t>(library, kSegmentCount, 0xffff), {"cut short or damaged"});
  expect_refused(with_number<std::uint16_t>(library, kSegmentCount, 0), {"segments"});
  expect_refused(with_number<std::uint16_t>(library, kSegmentBytes, 8), {"segments"});
  std::uint64_t segments_at = 0;
  std::memcpy(&segments_at, library.data() + kSegmentsAt, sizeof segments_at);
  expect_refused(with_number(library, segments_at + 32, ~std::uint64_t{0} / 2), {"cut short or damaged"});  // a segment's length
}

TEST(ReadTag, ALibraryWithoutATagIsRefused) {
  expect_refused(with_tag(read_bytes(good_plugin("rtn")), "qmill", "xmill"), {"no qmill tag"});
}

TEST(ReadTag, ATagWithoutItsEndOrWithBytesThatAreNoTextIsRefused) {
  const std::string library = read_bytes(good_plugin("rtn"));
  expect_refused(with_tag(library, ";end", ";eND"), {"no qmill tag"});
  expect_refused(with_tag(library, "name=rtn", "name=r\x01n"), {"no qmill tag"});
  expect_refused(with_tag(library, ";name=rtn", ""), {"lacks one of"});
}

TEST(ReadTag, WhatIsNoFileIsAnError) {
  const TempDir dir;
  EXPECT_THROW(read_tag(dir.path()), Error);
  EXPECT_THROW(read_tag(dir / "missing.so"), Error);
}

TEST(ReadTag, ATagAcrossTheEdgeOfAChunkIsFound) {
  const std::string library = read_bytes(good_plugin("rtn"));
  const std::string without = with_tag(library, "qmill", "xmill");
  const std::string tag = testing::tag_start() + "sdk=1.0;torch=2.6;abi=a;build=b;name=edge;end";
  constexpr std::size_t kChunk = 1 << 20;  // of the reader
  const std::size_t edge = (without.size() + tag.size() + kChunk) / kChunk * kChunk;
  const TempDir dir;
  for (int before = 0; before <= static_cast<int>(tag.size()); before += 5) {
    std::string padded = without;
    padded.resize(edge - static_cast<std::size_t>(before), 'x');
    write_bytes(dir / "p.so", padded + tag + std::string(5000, 'y'));
    EXPECT_EQ(read_tag(dir / "p.so").name, "edge") << before;
  }
}

}  // namespace
}  // namespace qmill
