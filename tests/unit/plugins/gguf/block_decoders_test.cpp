// Blocks by hand. tests/cli/test_gguf.py compares random blocks with the reference decoders.
#include <tensor_types.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

using namespace gguf;

namespace {

constexpr std::uint8_t kOneUpper = 0x3c;   // the upper byte of 1 in F16
constexpr std::uint8_t kHalfUpper = 0x38;  // of 0.5

struct ByHand {
  std::uint32_t type;
  std::map<int, std::uint8_t> bytes;  // by place; else 0
  float rest;                         // every value but these:
  std::map<int, float> values;
};

// What the places mean is in block_decoders.cpp and in ggml's header.
const std::vector<ByHand> kCases = {
    // Q4_0: value 3 in the low half of a byte, value 19 in the high half.
    {2, {{1, kHalfUpper}, {2 + 3, 0xa7}}, -4.0f, {{3, -0.5f}, {19, 1.0f}}},
    {3, {{1, kHalfUpper}, {3, kOneUpper}, {4 + 3, 0xa7}}, 1.0f, {{3, 4.5f}, {19, 6.0f}}},
    // Q5_0: the fifth bit of value 1, and of value 31.
    {6, {{1, kOneUpper}, {2, 0x02}, {5, 0x80}, {6 + 1, 0x03}}, -16.0f, {{1, 3.0f}, {31, 0.0f}}},
    {7, {{1, kOneUpper}, {3, kHalfUpper}, {4, 0x02}, {7, 0x80}, {8 + 1, 0x03}}, 0.5f, {{1, 19.5f}, {31, 16.5f}}},
    {8, {{1, kHalfUpper}, {2 + 5, 0x80}, {2 + 31, 0x7f}}, 0.0f, {{5, -64.0f}, {31, 63.5f}}},
    // Q2_K: group 11, which is the second half, bits 2 and 3, byte 16 to 31: scale 3, minimum 2.
    {10,
     {{81, kOneUpper}, {83, kHalfUpper}, {11, 0x23}, {16 + 32 + 16 + 2, 2 << 2}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 176; i < 192; ++i) values[i] = -1.0f;
       values[178] = 3 * 2 - 1;
       return values;
     }()},
    // Q3_K: all scales are 32 - 32 but that of group 14: 4 low bits 5, 2 high bits 3. The third bit of value 225 is set.
    {11,
     {{109, kOneUpper}, {96 + 6, 0x50}, {104, 0xaa}, {105, 0xaa}, {106, 0xea}, {107, 0xaa}, {32 + 32 + 1, 1 << 6}, {1, 0x80}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 224; i < 240; ++i) values[i] = 21 * -4.0f;
       values[225] = 21 * 1.0f;
       return values;
     }()},
    // Q4_K: group 5: scale 0b100011, minimum 0b010010.
    {12,
     {{1, kOneUpper}, {3, kHalfUpper}, {4 + 9, 0x23}, {4 + 1, 2 << 6}, {4 + 5, 1 << 6}, {16 + 2 * 32 + 4, 0x70}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 160; i < 192; ++i) values[i] = -9.0f;
       values[164] = 35 * 7 - 9;
       return values;
     }()},
    // Q5_K: group 2: scale 7, minimum 4; the fifth bit of its value 6.
    {13,
     {{1, kOneUpper}, {3, kHalfUpper}, {4 + 2, 7}, {4 + 6, 4}, {16 + 6, 1 << 2}, {48 + 32 + 6, 0x05}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 64; i < 96; ++i) values[i] = -2.0f;
       values[70] = 7 * 21 - 2;
       return values;
     }()},
    // Q6_K: group 13: scale -2; value 210 has the high bits 3.
    {14,
     {{209, kHalfUpper}, {192 + 13, 0xfe}, {64 + 16 + 2, 0x60}, {128 + 32 + 16 + 2, 3 << 4}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 208; i < 224; ++i) values[i] = 32.0f;
       values[210] = -1.0f * (6 + 48 - 32);
       return values;
     }()},
    {20, {{1, kHalfUpper}, {2 + 3, 0xf8}}, -63.5f, {{3, 0.5f}, {19, 56.5f}}},
    // IQ4_XS: all scales are 32 - 32 but that of group 6, which is 32 + 9 - 32.
    {23,
     {{1, kOneUpper}, {2, 0xaa}, {3, 0xaa}, {4 + 3, 0x09}, {8 + 96 + 2, 0x8f}},
     0.0f,
     [] {
       std::map<int, float> values;
       for (int i = 192; i < 224; ++i) values[i] = 9 * -127.0f;
       values[194] = 9 * 113.0f;
       values[210] = 9 * 1.0f;
       return values;
     }()},
};

TEST(BlockDecoders, EveryFieldIsWhereTheFormatHasIt) {
  for (const ByHand& each : kCases) {
    const TensorType& type = *tensor_type(each.type);
    std::vector<std::byte> block(type.block_bytes);
    for (const auto& [place, byte] : each.bytes) block.at(static_cast<std::size_t>(place)) = std::byte{byte};
    std::vector<float> values(type.block_values);
    type.decode(block.data(), values.data());
    for (int i = 0; i < static_cast<int>(values.size()); ++i) {
      const auto found = each.values.find(i);
      const float expected = found == each.values.end() ? each.rest : found->second;
      EXPECT_EQ(values[static_cast<std::size_t>(i)], expected) << type.name << ", value " << i;
    }
  }
}

TEST(BlockDecoders, EveryTypeThatIsDecodedHasACase) {
  for (std::uint32_t number = 0; number < 64; ++number) {
    const TensorType* type = tensor_type(number);
    if (type == nullptr || type->decode == nullptr) continue;
    EXPECT_LE(type->block_values, kMaxBlockValues);
    EXPECT_TRUE(std::any_of(kCases.begin(), kCases.end(), [&](const ByHand& each) { return each.type == number; })) << type->name;
  }
}

}  // namespace
