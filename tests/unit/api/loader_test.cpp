#include "expect_error.h"
#include "model_file.h"
#include "temp_dir.h"

#include <qmill/compat/unified_safetensors_loader.h>

#include <gmock/gmock.h>

namespace qmill {
namespace {

using testing::expect_error;
using testing::random_weight;
using testing::read_model;
using ::testing::UnorderedElementsAre;

class UnifiedLoader : public ::testing::Test {
 protected:
  UnifiedLoader() { testing::write_model(path, {{"layer.weight", weight}, {"layer.bias", bias}}, {{"author", "somebody"}}); }

  testing::TempDir dir;
  const std::filesystem::path path = dir / "model.safetensors";
  const at::Tensor weight = random_weight(3, 5, at::kBFloat16, 1);
  const at::Tensor bias = random_weight(1, 7, at::kFloat, 2).view({7});
};

TEST_F(UnifiedLoader, ListsWithoutReading) {
  const UnifiedSafetensorsLoader loader(path, true);
  EXPECT_THAT(loader.keys(), UnorderedElementsAre("layer.weight", "layer.bias"));
  EXPECT_EQ(loader.metadata().at("author"), "somebody");
  EXPECT_EQ(loader.get_shape("layer.weight"), (std::vector<std::int64_t>{3, 5}));
  EXPECT_EQ(loader.get_ndim("layer.weight"), 2);
  EXPECT_EQ(loader.get_ndim("layer.bias"), 1);
  EXPECT_EQ(loader.bytes_held(), 0u);
}

TEST_F(UnifiedLoader, GivesTensorsInBothModes) {
  for (const bool low_memory : {false, true}) {
    UnifiedSafetensorsLoader loader(path, low_memory);
    const at::Tensor found = loader.get_tensor("layer.weight");
    EXPECT_EQ(found.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(found.equal(weight)) << low_memory;
    EXPECT_TRUE(loader.get_tensor("layer.bias").equal(bias)) << low_memory;
  }
}

TEST_F(UnifiedLoader, GivesMemoryBackOfWhatIsProcessed) {
  UnifiedSafetensorsLoader loader(path);
  EXPECT_EQ(loader.bytes_held(), 3u * 5 * 2 + 7 * 4);
  loader.mark_processed("layer.weight");
  EXPECT_EQ(loader.bytes_held(), 7u * 4);
  EXPECT_TRUE(loader.get_tensor("layer.weight").equal(weight));  // read again
}

TEST_F(UnifiedLoader, TensorsOutliveIt) {
  at::Tensor kept;
  {
    UnifiedSafetensorsLoader loader(path, true);
    kept = loader.get_tensor("layer.weight");
  }
  EXPECT_TRUE(kept.equal(weight));
}

TEST_F(UnifiedLoader, RefusesWhatIsNotThere) {
  UnifiedSafetensorsLoader loader(path);
  expect_error(ErrorKind::usage, {"layer.wieght", "did you mean 'layer.weight'", "model.safetensors"},
               [&] { loader.get_tensor("layer.wieght"); });
  expect_error(ErrorKind::usage, {"nothing"}, [&] { loader.mark_processed("nothing"); });
  expect_error(ErrorKind::io, {"other.safetensors"}, [&] { UnifiedSafetensorsLoader(dir / "other.safetensors"); });
  testing::write_bytes(dir / "cut.safetensors", testing::read_bytes(path).substr(0, 40));
  expect_error(ErrorKind::input, {"cut.safetensors"}, [&] { UnifiedSafetensorsLoader(dir / "cut.safetensors"); });
}

TEST_F(UnifiedLoader, CloseIsFinal) {
  UnifiedSafetensorsLoader loader(path);
  loader.close();
  loader.close();
  expect_error(ErrorKind::usage, {"closed"}, [&] { loader.keys(); });
  expect_error(ErrorKind::usage, {"closed"}, [&] { loader.get_tensor("layer.weight"); });
  expect_error(ErrorKind::usage, {"closed"}, [&] { loader.metadata(); });
}

}  // namespace
}  // namespace qmill
