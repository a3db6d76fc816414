#include "lora/merged_values.h"

#include "core_support.h"

#include <ATen/ops/ones.h>

namespace qmill {
namespace {

using testing::host;
using testing::random_weight;
using testing::TempDir;
using testing::write_model;

// A model, a LoRA that changes some of it, and both as values.
struct MergedModel {
  MergedModel() {
    write_model(dir / "model.safetensors", {{"l.weight", random_weight(24, 32, at::kBFloat16, 1)},
                                            {"l.bias", random_weight(1, 24, at::kHalf, 2).view({24})},
                                            {"k.weight", random_weight(700, 1600, at::kFloat, 3)},  // more than a task's share
                                            {"other.weight", random_weight(8, 16, at::kBFloat16, 4)},
                                            {"ids", at::ones({4}, at::kLong)}});
    write_model(dir / "lora.safetensors", {{"l.lora_A.weight", random_weight(4, 32, at::kFloat, 5)},
                                           {"l.lora_B.weight", random_weight(24, 4, at::kFloat, 6)},
                                           {"l.diff_b", random_weight(1, 24, at::kFloat, 7).view({24})},
                                           {"k.lora_A.weight", random_weight(2, 1600, at::kFloat, 8)},
                                           {"k.lora_B.weight", random_weight(700, 2, at::kFloat, 9)}});
    source = host().open(dir / "model.safetensors");
    merge = std::make_shared<const Merge>([](const std::filesystem::path& path) { return host().open(path); }, *source,
                                          MergeOptions{.paths = {dir / "lora.safetensors"}, .scale = 0.5});
    plain = plain_values(*source);
    merged = values_of(*source, merge);
  }

  std::size_t index_of(std::string_view name) const {
    for (std::size_t i = 0; i < source->tensors().size(); ++i)
      if (source->tensors()[i].name == name) return i;
    throw std::out_of_range(std::string(name));
  }

  TempDir dir;
  std::unique_ptr<TensorSource> source;
  std::shared_ptr<const Merge> merge;
  std::unique_ptr<ValueSource> plain, merged;
  std::shared_ptr<BufferPool> buffers = std::make_shared<BufferPool>(1 << 20);
};

TEST(MergedValues, AreWhatTheMergeMakesOfTheSource) {
  MergedModel model;
  TaskPool tasks(2);
  for (const char* name : {"l.weight", "l.bias", "k.weight"}) {
    const std::size_t index = model.index_of(name);
    ASSERT_TRUE(model.merge->changes(index)) << name;
    const TensorInfo& info = model.merged->tensors()[index];
    EXPECT_EQ(info, (TensorInfo{name, DType::f32, model.source->tensors()[index].shape}));
    const at::Tensor before = model.plain->read(index, *model.buffers, tasks);
    const at::Tensor expected = model.merge->apply(index, before.clone(), *model.buffers, tasks);
    const at::Tensor found = model.merged->read(index, *model.buffers, tasks);
    EXPECT_EQ(found.scalar_type(), at::kFloat) << name;
    EXPECT_TRUE(found.equal(expected)) << name;
    EXPECT_FALSE(found.equal(before.to(at::kFloat))) << name << ": nothing was merged";
    TaskPool others(5);
    EXPECT_TRUE(model.merged->read(index, *model.buffers, others).equal(found)) << name << ": other threads, other bits";
    EXPECT_EQ(model.merged->reading_bytes(index), model.plain->reading_bytes(index) + model.merge->working_bytes(index)) << name;
    EXPECT_GT(model.merge->working_bytes(index), 0u) << name;
  }
}

TEST(MergedValues, LeaveTensorsAloneThatNothingChanges) {
  MergedModel model;
  TaskPool tasks(2);
  for (const char* name : {"other.weight", "ids"}) {
    const std::size_t index = model.index_of(name);
    EXPECT_FALSE(model.merge->changes(index)) << name;
    EXPECT_EQ(model.merged->tensors()[index], model.source->tensors()[index]);
    const at::Tensor found = model.merged->read(index, *model.buffers, tasks);
    const at::Tensor before = model.plain->read(index, *model.buffers, tasks);
    EXPECT_EQ(found.scalar_type(), before.scalar_type()) << name;
    EXPECT_TRUE(found.equal(before)) << name;
    EXPECT_EQ(model.merged->reading_bytes(index), static_cast<std::uint64_t>(before.nbytes())) << name;
  }
}

TEST(ValueSource, PlainValuesAreThoseOfTheFile) {
  const TempDir dir;
  // Larger than the part that one task reads.
  const at::Tensor large = random_weight(1500, 2000, at::kFloat, 1);
  write_model(dir / "m.safetensors", {{"large", large}, {"none", at::ones({0, 3})}, {"one", at::ones({}, at::kBFloat16)}});
  const auto source = host().open(dir / "m.safetensors");
  const std::unique_ptr<ValueSource> values = plain_values(*source);
  EXPECT_EQ(values->tensors(), source->tensors());
  const auto buffers = std::make_shared<BufferPool>(1 << 20);
  TaskPool tasks(3);
  for (std::size_t i = 0; i < source->tensors().size(); ++i) {
    const TensorInfo& info = source->tensors()[i];
    const at::Tensor found = values->read(i, *buffers, tasks);
    EXPECT_EQ(found.sizes(), at::IntArrayRef(info.shape)) << info.name;
    EXPECT_EQ(dtype_of(found), info.dtype) << info.name;
    if (info.name == "large") {
      EXPECT_TRUE(found.equal(large));
    } else if (info.name == "one") {
      EXPECT_EQ(found.item<float>(), 1);
    }
    EXPECT_EQ(values->reading_bytes(i), static_cast<std::uint64_t>(info.bytes())) << info.name;
  }
  EXPECT_EQ(qmill::bytes_of(*source), large.nbytes() + 2);
}

}  // namespace
}  // namespace qmill
