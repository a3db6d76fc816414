#include "gguf_bytes.h"

#include <expect_error.h>
#include <model_file.h>
#include <qmill/plugin.h>
#include <qmill/source_details.h>
#include <temp_dir.h>

#include <gtest/gtest.h>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace gguf_test;
using qmill::ErrorKind;
using qmill::testing::expect_error;
using qmill::testing::TempDir;
using qmill::testing::write_bytes;

namespace {

class GgufPlugin : public ::testing::Test {
 protected:
  const std::unique_ptr<qmill::Loader> loader{static_cast<qmill::Loader*>(qmill_plugin.offers[0].create())};
  const TempDir folder;
};

// Two blocks: 0.5 * -128, 0.5 * -127, ... and 2 * 127, 2 * 126, ...
std::string two_blocks() {
  std::string data = number<std::uint16_t>(0x3800);
  for (int i = 0; i < 32; ++i) data += number(static_cast<std::int8_t>(-128 + i));
  data += number<std::uint16_t>(0x4000);
  for (int i = 0; i < 32; ++i) data += number(static_cast<std::int8_t>(127 - i));
  return data;
}

TEST_F(GgufPlugin, FilesAreKnownByTheirFirstBytes) {
  write_bytes(folder / "a.bin", file({}, {}, ""));
  write_bytes(folder / "b.bin", "GGU");
  write_bytes(folder / "c.gguf", "");
  EXPECT_TRUE(loader->probe(folder / "a.bin"));
  EXPECT_FALSE(loader->probe(folder / "b.bin"));
  EXPECT_FALSE(loader->probe(folder / "missing"));
  EXPECT_FALSE(loader->probe(folder.path()));
  EXPECT_TRUE(loader->probe(folder / "c.gguf"));  // opening it says what is wrong
  expect_error(ErrorKind::input, {"c.gguf'"}, [&] { loader->open(folder / "c.gguf"); });
}

TEST_F(GgufPlugin, PlainTensorsAreTheBytesOfTheFile) {
  const std::string data = "0123456789abcdef";
  write_bytes(folder / "m.gguf", file({}, {entry("t", {2, 2}, 0, 0)}, data));
  const auto source = loader->open(folder / "m.gguf");
  std::string part(5, '\0');
  source->read_part(0, 3, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, "34567");
  const qmill::Extent extent = source->extent(0).value();
  EXPECT_EQ(qmill::testing::read_bytes(extent.file).substr(extent.offset, extent.bytes), data);
  EXPECT_EQ(source->files(), std::vector{folder / "m.gguf"});
  EXPECT_EQ(stored_type(*source, 0), "");
}

TEST_F(GgufPlugin, EveryRangeOfAQ8_0TensorIsDecoded) {
  write_bytes(folder / "m.gguf", file({}, {entry("t", {32, 2}, 8, 0)}, two_blocks()));
  const auto source = loader->open(folder / "m.gguf");
  EXPECT_EQ(source->extent(0), std::nullopt);
  std::vector<float> expected;
  for (int i = 0; i < 32; ++i) expected.push_back(0.5f * static_cast<float>(-128 + i));
  for (int i = 0; i < 32; ++i) expected.push_back(2.0f * static_cast<float>(127 - i));
  const auto* bytes = reinterpret_cast<const std::byte*>(expected.data());
  for (std::size_t begin = 0; begin <= 256; ++begin)
    for (std::size_t end = begin; end <= 256; ++end) {
      std::vector<std::byte> part(end - begin);
      source->read_part(0, begin, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), bytes + begin)) << begin << " to " << end;
    }
}

TEST_F(GgufPlugin, APartOfALargeBlockIsThatPartOfItsValues) {
  std::string data;
  for (int i = 0; i < 3 * 210; ++i) data += static_cast<char>(i * 7 % 120);  // three blocks of Q6_K, with finite factors
  write_bytes(folder / "m.gguf", file({}, {entry("t", {256, 3}, 14, 0)}, data));
  const auto source = loader->open(folder / "m.gguf");
  EXPECT_EQ(stored_type(*source, 0), "Q6_K");
  std::vector<std::byte> all(3 * 256 * sizeof(float));
  source->read(0, all);
  for (std::size_t begin = 0; begin < all.size(); begin += 97)
    for (std::size_t bytes = 0; begin + bytes <= all.size(); bytes += 501) {
      std::vector<std::byte> part(bytes);
      source->read_part(0, begin, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), all.begin() + static_cast<std::ptrdiff_t>(begin))) << begin << ", " << bytes;
    }
}

TEST_F(GgufPlugin, LargeTensorsAreDecodedPieceByPiece) {
  std::string data;
  for (int i = 0; i < 3000; ++i) data += two_blocks();
  write_bytes(folder / "m.gguf", file({}, {entry("t", {64, 3000}, 8, 0)}, data));
  const auto source = loader->open(folder / "m.gguf");
  std::vector<float> values(64 * 3000);
  source->read(0, std::as_writable_bytes(std::span(values)));
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(values[i], i % 64 < 32 ? 0.5f * static_cast<float>(-128 + static_cast<int>(i % 64))
                                     : 2.0f * static_cast<float>(127 + 32 - static_cast<int>(i % 64)))
        << i;
}

TEST_F(GgufPlugin, AFileThatShrinksIsAnError) {
  write_bytes(folder / "m.gguf", file({}, {entry("t", {32, 2}, 8, 0)}, two_blocks()));
  const auto source = loader->open(folder / "m.gguf");
  std::filesystem::resize_file(folder / "m.gguf", std::filesystem::file_size(folder / "m.gguf") - 1);
  std::vector<std::byte> all(256);
  expect_error(ErrorKind::input, {"m.gguf"}, [&] { source->read(0, all); });
}

}  // namespace
