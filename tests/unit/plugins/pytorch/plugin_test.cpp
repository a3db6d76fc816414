#include "zip_bytes.h"

#include <expect_error.h>
#include <model_file.h>
#include <qmill/plugin.h>
#include <temp_dir.h>

#include <gtest/gtest.h>

#include <thread>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using namespace pytorch_test;
using qmill::ErrorKind;
using qmill::testing::expect_error;
using qmill::testing::TempDir;
using qmill::testing::write_bytes;

namespace pytorch_plugin_test {

class PytorchPlugin : public ::testing::Test {
 protected:
  std::unique_ptr<qmill::TensorSource> open(const std::vector<Entry>& entries) {
    write_bytes(folder / "m.pt", Archive{entries, ""}.bytes());
    return loader->open(folder / "m.pt");
  }

  const std::unique_ptr<qmill::Loader> loader{static_cast<qmill::Loader*>(qmill_plugin.offers[0].create())};
  const TempDir folder;
};

// 12 bytes: 0 to 11.
const std::string kBytes("\0\1\2\3\4\5\6\7\10\11\12\13", 12);

std::string bytes_view(std::int64_t offset, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
  return pickle(dict({{"t", tensor(storage("ByteStorage", "0", 12), offset, shape, strides)}}));
}

TEST_F(PytorchPlugin, FilesAreKnownByTheirFirstBytes) {
  write_bytes(folder / "a.bin", Archive{{{"a", "b"}}, ""}.bytes());
  write_bytes(folder / "a.safetensors", Archive{{{"a", "b"}}, ""}.bytes());
  write_bytes(folder / "legacy.pt", "\x80\x02\x8a\x0a");
  write_bytes(folder / "legacy.txt", "\x80\x02\x8a\x0a");
  write_bytes(folder / "text.bin", "text");
  write_bytes(folder / "short.pt", "PK");
  EXPECT_TRUE(loader->probe(folder / "a.bin"));
  EXPECT_TRUE(loader->probe(folder / "a.safetensors"));
  EXPECT_TRUE(loader->probe(folder / "legacy.pt"));
  for (const char* name : {"legacy.txt", "text.bin", "short.pt", "missing.pt"}) EXPECT_FALSE(loader->probe(folder / name)) << name;
  EXPECT_FALSE(loader->probe(folder.path()));
}

TEST_F(PytorchPlugin, ContiguousTensorsAreTheBytesOfTheFile) {
  const auto source = open(
      {{"archive/data.pkl", bytes_view(2, {2, 4}, {4, 1})}, {"archive/byteorder", "little"}, {"archive/data/0", kBytes, 0, 0x0808, 51}});
  const qmill::Extent extent = source->extent(0).value();
  EXPECT_EQ(qmill::testing::read_bytes(extent.file).substr(extent.offset, extent.bytes), kBytes.substr(2, 8));
  std::string part(3, '\0');
  source->read_part(0, 4, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, kBytes.substr(6, 3));
}

TEST_F(PytorchPlugin, ViewsAreReadByTheirStrides) {
  struct Case {
    std::string pickle;
    std::string expected;
  };
  const Case cases[] = {{bytes_view(0, {4, 3}, {1, 4}), std::string("\0\4\10\1\5\11\2\6\12\3\7\13", 12)},
                        {bytes_view(1, {2, 2}, {6, 2}), "\1\3\7\11"},
                        {bytes_view(3, {3, 2}, {0, 1}), "\3\4\3\4\3\4"},
                        {bytes_view(5, {2, 1, 3}, {3, 99, 2}), ""}};
  for (const Case& each : {cases[0], cases[1], cases[2]}) {
    const auto source = open({{"data.pkl", each.pickle}, {"data/0", kBytes}});
    EXPECT_EQ(source->extent(0), std::nullopt);
    for (std::size_t begin = 0; begin <= each.expected.size(); ++begin)
      for (std::size_t end = begin; end <= each.expected.size(); ++end) {
        std::string part(end - begin, '\0');
        source->read_part(0, begin, std::as_writable_bytes(std::span(part)));
        EXPECT_EQ(part, each.expected.substr(begin, end - begin));
      }
  }
  expect_error(ErrorKind::input, {"'t'"}, [&] { open({{"data.pkl", cases[3].pickle}, {"data/0", kBytes}}); });
}

TEST_F(PytorchPlugin, ViewsAreReadFromSeveralThreads) {
  const std::string both = pickle(dict({{"a", tensor(storage("ByteStorage", "0", 12), 0, {4, 3}, {1, 4})},
                                        {"b", tensor(storage("ByteStorage", "0", 12), 0, {2, 6}, {1, 2})}}));
  const auto source = open({{"data.pkl", both}, {"data/0", kBytes}});
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 500; ++i) {
        const std::size_t index = static_cast<std::size_t>(thread + i) % 2;
        std::string all(12, '\0');
        source->read(index, std::as_writable_bytes(std::span(all)));
        ASSERT_EQ(all, index == 0 ? std::string("\0\4\10\1\5\11\2\6\12\3\7\13", 12) : std::string("\0\2\4\6\10\12\1\3\5\7\11\13", 12));
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST_F(PytorchPlugin, ArchivesOfOtherKindsAreRefusedByName) {
  const std::string value = bytes_view(0, {12}, {1});
  expect_error(ErrorKind::input, {"m.pt'", "without data.pkl"}, [&] { open({{"word/document.xml", "x"}}); });
  expect_error(ErrorKind::input, {"two pickles"}, [&] { open({{"a/data.pkl", value}, {"b/data.pkl", value}}); });
  expect_error(ErrorKind::input, {"'a/data/0' is compressed", "torch.save"}, [&] {
    open({{"a/data.pkl", value}, {"a/data/0", kBytes, 8}});
  });
  expect_error(ErrorKind::unsupported, {"TorchScript"}, [&] { open({{"a/data.pkl", value}, {"a/constants.pkl", value}}); });
  expect_error(ErrorKind::unsupported, {"'big'"}, [&] { open({{"a/data.pkl", value}, {"a/byteorder", "big"}, {"a/data/0", kBytes}}); });
  expect_error(ErrorKind::input, {"'t'", "not in the archive"}, [&] { open({{"a/data.pkl", value}, {"data/0", kBytes}}); });
  expect_error(ErrorKind::input, {"data.pkl", "33554433 bytes"}, [&] { open({{"a/data.pkl", std::string((32u << 20) + 1, 'N')}}); });
}

TEST_F(PytorchPlugin, OldAndForeignFilesAreRefusedByName) {
  const auto reject = [&](ErrorKind kind, const std::string& bytes, std::initializer_list<std::string_view> parts) {
    write_bytes(folder / "m.pt", bytes);
    expect_error(kind, parts, [&] { loader->open(folder / "m.pt"); });
  };
  reject(ErrorKind::unsupported, "\x80\x02\x8a\x0al\xfc", {"m.pt'", "before version 1.6", "save it again with torch.save"});
  reject(ErrorKind::input, "hello", {"not a file of torch.save"});
  reject(ErrorKind::input, "PK\x03\x04", {"without its directory"});
}

}  // namespace pytorch_plugin_test
