#include <qmill/core/output_plan.h>

#include "core_support.h"

#include <nlohmann/json.hpp>

namespace qmill {
namespace {

using testing::expect_error;

nlohmann::json header_of(const OutputPlan& plan) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(plan.header.at(i));
  EXPECT_EQ(plan.header.size(), length + 8);
  return nlohmann::json::parse(plan.header.substr(8));
}

TEST(OutputPlan, AnEmptyModelIsAHeaderAlone) {
  const OutputPlan plan = plan_output({}, {});
  EXPECT_EQ(header_of(plan), nlohmann::json::object());
  EXPECT_EQ(plan.file_bytes, plan.header.size());
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
  std::uint64_t end = plan.header.size();
  for (const auto& [offset, bytes] : spans) {
    EXPECT_EQ(offset, end);
    end = offset + bytes;
  }
  EXPECT_EQ(end, plan.file_bytes);
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
    EXPECT_EQ(entry.at("data_offsets")[0], tensor.offset - plan.header.size());
    EXPECT_EQ(entry.at("data_offsets")[1], tensor.offset - plan.header.size() + static_cast<std::uint64_t>(tensor.info.bytes()));
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
  const std::string header = plan_output(tensors, {}).header;
  std::reverse(tensors.begin(), tensors.end());
  EXPECT_EQ(plan_output(tensors, {}).header, header);
}

}  // namespace
}  // namespace qmill
