#include <zip.h>

#include "zip_bytes.h"

#include <expect_error.h>

#include <gtest/gtest.h>

#include <cstring>

using namespace pytorch;
using namespace pytorch_test;
using qmill::ErrorKind;
using qmill::testing::expect_error;

namespace pytorch_zip_test {

std::map<std::string, ZipEntry> parse(const std::string& bytes) {
  return read_zip_directory(bytes.size(), [&](std::uint64_t offset, std::span<std::byte> out) {
    ASSERT_LE(offset, bytes.size());
    ASSERT_LE(out.size(), bytes.size() - offset);
    std::memcpy(out.data(), bytes.data() + offset, out.size());
  });
}

void expect_rejected(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  expect_error(ErrorKind::input, parts, [&] { parse(bytes); });
}

std::string replaced(std::string bytes, const std::string& what, const std::string& by, int which = 0) {
  std::size_t at = bytes.find(what);
  for (; which > 0; --which) at = bytes.find(what, at + 1);
  return bytes.replace(at, what.size(), by);
}

TEST(Zip, EntriesLieWhereTheirHeadersSay) {
  Archive archive{{{"a/data.pkl", "pickle"}, {"a/data/0", std::string(100, 'x'), 0, 0x0808, 37}, {"empty", ""}}, ""};
  for (const bool is_wide : {true, false})
    for (const bool widens : {true, false})
      for (const char* comment : {"", "PK\x05\x06 a comment"}) {
        archive.is_wide = is_wide;
        archive.widens_entries = widens;
        archive.comment = comment;
        std::vector<std::uint64_t> offsets;
        const auto entries = parse(archive.bytes(&offsets));
        ASSERT_EQ(entries.size(), 3u);
        for (std::size_t i = 0; i < 3; ++i) {
          EXPECT_EQ(entries.at(archive.entries[i].name).offset, offsets[i]);
          EXPECT_EQ(entries.at(archive.entries[i].name).bytes, archive.entries[i].data.size());
        }
      }
}

TEST(Zip, EveryPrefixIsAnError) {
  const std::string bytes = Archive{{{"a", "xyz"}, {"b", "0123456789"}}, ""}.bytes();
  for (std::size_t length = 0; length < bytes.size(); ++length) expect_error(ErrorKind::input, {}, [&] { parse(bytes.substr(0, length)); });
}

TEST(Zip, CompressedEntriesAreToldApart) {
  const auto entries = parse(Archive{{{"a", "xyz", 8}, {"b", "xyz"}}, ""}.bytes());
  EXPECT_FALSE(entries.at("a").is_stored);
  EXPECT_TRUE(entries.at("b").is_stored);
  std::string bytes = Archive{{{"a", "xyz"}}, ""}.bytes();
  bytes.replace(bytes.rfind("PK\x01\x02") + 24, 1, "\x02");
  expect_rejected(bytes, {"'a' is stored, but has two sizes: 3 and 2"});
}

TEST(Zip, EncryptedEntriesAreRefusedByName) { expect_rejected(Archive{{{"a", "xyz", 0, 0x0809}}, ""}.bytes(), {"'a' is encrypted"}); }

TEST(Zip, HeadersThatDisagreeAreErrors) {
  const std::string bytes = Archive{{{"name", "xyz"}, {"other", "xyz"}}, ""}.bytes();
  expect_rejected(replaced(bytes, "name", "nome"), {"'name' is another one"});
  expect_rejected(replaced(bytes, "PK\x03\x04", "PK\x03\x05"), {"'name' is not where"});
  expect_rejected(replaced(bytes, "PK\x01\x02", "PK\x01\x03"), {"breaks off at byte 0"});
  expect_rejected(replaced(bytes, "PK\x06\x06", "PK\x06\x00"), {"not where the end of the file says"});
}

TEST(Zip, NamesThatAreTwiceAndEntriesThatOverlapAreErrors) {
  expect_rejected(Archive{{{"a", "x"}, {"a", "y"}}, ""}.bytes(), {"'a' twice"});
  // The second entry lies inside the first.
  const std::string inner = number(0x04034b50, 4) + std::string(22, '\0') + number(1, 2) + number(0, 2) + "b" + "data";
  Archive archive{{{"a", inner}, {"b", "data"}}, ""};
  std::vector<std::uint64_t> offsets;
  std::string bytes = archive.bytes(&offsets);
  const std::size_t central = bytes.rfind("PK\x01\x02");
  bytes.replace(central + 42, 4, number(offsets[0], 4));
  expect_rejected(bytes, {"'a' and 'b' overlap"});
}

TEST(Zip, AbsurdNumbersAreErrors) {
  Archive archive{{{"a", "xyz"}}, ""};
  archive.is_wide = false;
  const std::string bytes = archive.bytes();
  const std::size_t end = bytes.size() - 22;
  const auto with = [&](std::size_t at, std::uint64_t value, int size) {
    std::string changed = bytes;
    return changed.replace(at, static_cast<std::size_t>(size), number(value, size));
  };
  expect_rejected(with(end + 10, 65535, 2), {"65535 entries"});
  expect_rejected(with(end + 12, 0xfffffffe, 4), {"beyond its end"});
  expect_rejected(with(end + 16, 0xfffffffe, 4), {"beyond its end"});
  expect_rejected(with(end + 4, 1, 2), {"split archive"});
  expect_rejected(with(end + 10, 0, 2), {"0 entries take 0"});
  const std::size_t central = bytes.rfind("PK\x01\x02");
  expect_rejected(with(central + 20, 0xffffffff, 4), {"'a' lacks its 64-bit sizes"});
  expect_rejected(with(central + 42, 0xfffffff0, 4), {"bytes from"});
  expect_rejected(with(central + 28, 65535, 2), {"breaks off"});
  std::string larger = with(central + 20, 4000, 4);
  larger.replace(central + 24, 4, number(4000, 4));
  expect_rejected(larger, {"'a' of 4000 bytes", "runs into the directory"});

  archive.is_wide = true;
  const std::string wide = archive.bytes();
  const std::size_t record = wide.find("PK\x06\x06");
  for (const std::size_t field : {32, 40, 48}) {
    std::string changed = wide;
    expect_rejected(changed.replace(record + field, 8, std::string(8, '\xff')), {});
  }
}

TEST(Zip, WhatIsNoArchiveIsAnError) {
  expect_rejected("", {"without its directory"});
  expect_rejected(std::string(100'000, 'x'), {"without its directory"});
}

}  // namespace pytorch_zip_test
