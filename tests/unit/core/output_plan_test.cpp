#include <qmill/core/output_plan.h>

#include "core_support.h"

#include <nlohmann/json.hpp>

namespace qmill {
namespace {

using testing::expect_error;

nlohmann::json header_of(const OutputPlan& plan) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(plan.files.front().header.at(i));
  EXPECT_EQ(plan.files.front().header.size(), length + 8);
  return nlohmann::json::parse(plan.files.front().header.substr(8));
}

TEST(OutputPlan, AnEmptyModelIsAHeaderAlone) {
  const OutputPlan plan = plan_output({}, {});
  EXPECT_EQ(header_of(plan), nlohmann::json::object());
  EXPECT_EQ(plan.bytes(), plan.files.front().header.size());
}

TEST(OutputPlan, TensorsGoByDescendingElementSizeThenName) {
  const OutputPlan plan = plan_output({{"d", DType::u8, {3}},
                                       {"b", DType::bf16, {3}},
                                       {"z", DType::f64, {1}},
                                       {"c", DType::f32, {3}},
                                       {"a", DType::i8, {5}},
                                       {"f", DType::f4, {2}}},
                                      {});
  std::vector<std::pair<std::uint64_t, std::string>> order;
  for (const auto& [name, tensor] : plan.tensors) order.emplace_back(tensor.offset, name);
  std::sort(order.begin(), order.end());
  std::string names;
  for (const auto& [offset, name] : order) names += name;
  EXPECT_EQ(names, "zcbadf");
}

TEST(OutputPlan, EveryTensorIsAlignedAndFollowsTheOneBefore) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 60; ++i)
    tensors.push_back({"t" + std::to_string(i),
                       std::array{DType::u8, DType::f16, DType::f32, DType::i64, DType::boolean}[static_cast<std::size_t>(i % 5)],
                       {i % 7, 3}});
  const OutputPlan plan = plan_output(tensors, {{"key", "value"}});
  std::map<std::uint64_t, std::uint64_t> spans;  // offset to bytes, of those that have any
  for (const auto& [name, tensor] : plan.tensors) {
    EXPECT_EQ(tensor.offset % static_cast<std::uint64_t>(dtype_bits(tensor.info.dtype) / 8), 0u) << name;
    EXPECT_TRUE(tensor.info.bytes() == 0 || spans.emplace(tensor.offset, tensor.info.bytes()).second) << name;
  }
  std::uint64_t end = plan.files.front().header.size();
  for (const auto& [offset, bytes] : spans) {
    EXPECT_EQ(offset, end);
    end = offset + bytes;
  }
  EXPECT_EQ(end, plan.bytes());
}

TEST(OutputPlan, TheHeaderSaysWhatThePlanSays) {
  const OutputPlan plan = plan_output({{"w", DType::f32, {2, 3}}, {"s", DType::f32, {}}, {"e", DType::i8, {0, 4}}}, {{"k", "v"}});
  const nlohmann::json header = header_of(plan);
  EXPECT_EQ(header.at("__metadata__"), (nlohmann::json{{"k", "v"}}));
  EXPECT_EQ(header.size(), 4u);
  for (const auto& [name, tensor] : plan.tensors) {
    const nlohmann::json& entry = header.at(name);
    EXPECT_EQ(entry.at("dtype"), std::string(dtype_name(tensor.info.dtype)));
    EXPECT_EQ(entry.at("shape"), nlohmann::json(tensor.info.shape));
    EXPECT_EQ(entry.at("data_offsets")[0], tensor.offset - plan.files.front().header.size());
    EXPECT_EQ(entry.at("data_offsets")[1], tensor.offset - plan.files.front().header.size() + static_cast<std::uint64_t>(tensor.info.bytes()));
  }
}

TEST(OutputPlan, AbsurdNamesAndMetadataComeBack) {
  const std::vector<std::string> names = {
      "",         " ",       "\"quoted\"",       "back\\slash", "new\nline",           "tab\t",
      "nul\x01",  "ünïcödé", "模型.重み.weight", "🦙",        "{\"dtype\":\"F32\"}", std::string(2000, 'n'),
      "a/b/../c", "'"};
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
  for (const std::string& name : names) {
    tensors.push_back({name, DType::u8, {1}});
    metadata.emplace(name, name);
  }
  const nlohmann::json header = header_of(plan_output(tensors, metadata));
  for (const std::string& name : names) {
    EXPECT_TRUE(header.contains(name)) << name;
    EXPECT_EQ(header.at("__metadata__").at(name), name);
  }
}

TEST(OutputPlan, ANameThatIsThereTwiceIsAnErrorThatNamesIt) {
  expect_error(ErrorKind::input, {"'a.scale'", "two tensors"}, [] {
    plan_output({{"a.scale", DType::f32, {1}}, {"b", DType::f32, {1}}, {"a.scale", DType::u8, {2}}}, {});
  });
}

TEST(OutputPlan, ATensorWithTheNameOfTheMetadataIsAnError) {
  expect_error(ErrorKind::input, {"__metadata__"}, [] { plan_output({{"__metadata__", DType::f32, {1}}}, {}); });
}

TEST(OutputPlan, AHeaderBeyondWhatReadersTakeIsAnError) {
  expect_error(ErrorKind::unsupported, {"100000000"}, [] {
    plan_output({{"a", DType::u8, {1}}}, {{"long", std::string(100'000'001, 'x')}});
  });
}

TEST(OutputPlan, TheSameTensorsInAnyOrderGiveTheSameFile) {
  std::vector<TensorInfo> tensors = {{"a", DType::u8, {1}}, {"b", DType::f32, {2}}, {"c", DType::f32, {3}}, {"d", DType::i64, {1}}};
  const std::string header = plan_output(tensors, {}).files.front().header;
  std::reverse(tensors.begin(), tensors.end());
  EXPECT_EQ(plan_output(tensors, {}).files.front().header, header);
}

// `count` layers of `bytes` each, with a scale.
std::vector<std::vector<TensorInfo>> layers_of(std::size_t count, std::int64_t bytes) {
  std::vector<std::vector<TensorInfo>> layers;
  for (std::size_t i = 0; i < count; ++i) {
    const std::string name = "layer" + std::to_string(i);
    layers.push_back({{name + ".weight", DType::i8, {bytes}}, {name + ".weight_scale", DType::f32, {}}});
  }
  return layers;
}

TEST(PlanShards, NoFileIsLargerThanTheLimitAndNoneIsNeedless) {
  for (const std::uint64_t limit : {2000u, 2345u, 5000u, 10000u}) {
    const OutputPlan plan = plan_shards(layers_of(40, 900), {{"k", "v"}}, limit, 1000);
    ASSERT_GT(plan.files.size(), 1u);
    std::vector<std::uint64_t> ends(plan.files.size());
    for (std::size_t file = 0; file < plan.files.size(); ++file) {
      EXPECT_LE(plan.files[file].bytes, limit);
      // The next layer, with what the header would say of it, would not have fitted.
      if (file + 1 < plan.files.size()) {
        EXPECT_GT(plan.files[file].bytes + 1300, limit);
      }
      ends[file] = plan.files[file].header.size();
    }
    EXPECT_EQ(plan.tensors.size(), 80u);
    for (const auto& [name, tensor] : plan.tensors) ends[tensor.file] += static_cast<std::uint64_t>(tensor.info.bytes());
    for (std::size_t file = 0; file < plan.files.size(); ++file) EXPECT_EQ(ends[file], plan.files[file].bytes);
  }
}

TEST(PlanShards, TheTensorsOfALayerAreInOneFile) {
  const OutputPlan plan = plan_shards(layers_of(30, 700), {}, 2500, 1000);
  for (int i = 0; i < 30; ++i) {
    const std::string name = "layer" + std::to_string(i);
    EXPECT_EQ(plan.tensors.at(name + ".weight").file, plan.tensors.at(name + ".weight_scale").file);
  }
}

TEST(PlanShards, EveryFileHasTheMetadataAndOnlyItsTensors) {
  const OutputPlan plan = plan_shards(layers_of(5, 900), {{"k", "v"}}, 2500, 1000);
  std::size_t count = 0;
  for (std::size_t file = 0; file < plan.files.size(); ++file) {
    const nlohmann::json header = nlohmann::json::parse(plan.files[file].header.substr(8));
    EXPECT_EQ(header.at("__metadata__").at("k"), "v");
    for (const auto& [name, entry] : header.items())
      if (name != "__metadata__") {
        EXPECT_EQ(plan.tensors.at(name).file, file) << name;
      }
    count += header.size() - 1;
  }
  EXPECT_EQ(count, 10u);
}

TEST(PlanShards, ALayerAboveTheLimitIsAFileOfItsOwn) {
  std::vector<std::vector<TensorInfo>> layers = layers_of(3, 100);
  layers[1][0].shape = {100'000};
  const OutputPlan plan = plan_shards(layers, {}, 1000, 1000);
  ASSERT_EQ(plan.files.size(), 3u);
  EXPECT_GT(plan.files[1].bytes, 100'000u);
}

TEST(PlanShards, WithoutALimitOrBelowItThereIsOneFileAsEver) {
  const std::vector<std::vector<TensorInfo>> layers = layers_of(3, 100);
  std::vector<TensorInfo> tensors;
  for (const auto& layer : layers) tensors.insert(tensors.end(), layer.begin(), layer.end());
  const std::string header = plan_output(tensors, {{"k", "v"}}).files.front().header;
  for (const auto limit : {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(100'000)}) {
    const OutputPlan plan = plan_shards(layers, {{"k", "v"}}, limit, 1000);
    ASSERT_EQ(plan.files.size(), 1u);
    EXPECT_EQ(plan.files.front().header, header);
  }
  EXPECT_EQ(plan_shards({}, {}, 1000, 1000).files.size(), 1u);
}

TEST(PlanShards, ANameInTwoOfThemIsAnError) {
  std::vector<std::vector<TensorInfo>> layers = layers_of(6, 900);
  layers[5][0].name = "layer0.weight";
  expect_error(ErrorKind::input, {"'layer0.weight'", "two tensors"}, [&] { plan_shards(layers, {}, 2000, 1000); });
}

TEST(PlanShards, MoreThanTheirNamesCanCountAreRefused) {
  EXPECT_EQ(plan_shards(layers_of(4, 900), {}, 1, 4).files.size(), 4u);
  expect_error(ErrorKind::usage, {"5 files", "can count 4", "`max_shard_size`"}, [] { plan_shards(layers_of(5, 900), {}, 1, 4); });
}

TEST(PlanShards, TheIndexNamesTheFileOfEachTensor) {
  const OutputPlan plan = plan_shards(layers_of(4, 900), {}, 2500, 1000);
  ASSERT_EQ(plan.files.size(), 2u);
  const nlohmann::json index = nlohmann::json::parse(shard_index_text(plan, {"a", "b"}));
  EXPECT_EQ(index.at("metadata").at("total_size"), 4 * (900 + 4));
  EXPECT_EQ(index.at("weight_map").size(), 8u);
  EXPECT_EQ(index.at("weight_map").at("layer1.weight"), "a");
  EXPECT_EQ(index.at("weight_map").at("layer2.weight_scale"), "b");
}

}  // namespace
}  // namespace qmill
