#include <gtest/gtest.h>
#include <model_file.h>
#include <qmill/error.h>
#include <qmill/plugin.h>
#include <temp_dir.h>

extern "C" const qmill::PluginDescriptor qmill_plugin;

using qmill::testing::TempDir;
using qmill::testing::write_bytes;
using qmill::testing::write_model;

namespace {

class SafetensorsPlugin : public ::testing::Test {
 protected:
  const std::unique_ptr<qmill::Loader> loader{static_cast<qmill::Loader*>(qmill_plugin.offers[0].create())};
  const TempDir folder;
  void SetUp() override { write_model(folder / "m.safetensors", {{"a", qmill::testing::random_weight(5, 7, at::kHalf, 1)}}); }
};

TEST_F(SafetensorsPlugin, ItOffersOneLoader) {
  ASSERT_EQ(qmill_plugin.offer_count, 1u);
  EXPECT_EQ(qmill_plugin.offers[0].kind, qmill::OfferKind::loader);
  EXPECT_STREQ(qmill_plugin.offers[0].name, loader->info().name.c_str());
}

TEST_F(SafetensorsPlugin, FilesAreKnownByNameOrByTheirFirstBytes) {
  std::filesystem::copy_file(folder / "m.safetensors", folder / "m.bin");
  write_bytes(folder / "text.txt", "not a model");
  write_bytes(folder / "short", "{");
  EXPECT_TRUE(loader->probe(folder / "m.safetensors"));
  EXPECT_TRUE(loader->probe(folder / "m.bin"));
  EXPECT_TRUE(loader->probe(folder.path()));
  EXPECT_TRUE(loader->probe(folder / "missing.safetensors"));  // opening it says that it is missing
  EXPECT_TRUE(loader->probe(folder / "m.safetensors.index.json"));
  EXPECT_FALSE(loader->probe(folder / "text.txt"));
  EXPECT_FALSE(loader->probe(folder / "short"));
  EXPECT_FALSE(loader->probe(folder / "missing"));
}

TEST_F(SafetensorsPlugin, AFileAnIndexAndAFolderAreOpened) {
  EXPECT_EQ(loader->open(folder / "m.safetensors")->tensors().size(), 1u);
  EXPECT_EQ(loader->open(folder.path())->tensors().size(), 1u);
  write_bytes(folder / "m.safetensors.index.json", R"({"weight_map":{"a":"m.safetensors"}})");
  EXPECT_EQ(loader->open(folder / "m.safetensors.index.json")->tensors().size(), 1u);
  EXPECT_THROW(loader->open(folder / "missing"), qmill::Error);
}

}  // namespace
