#include "block_decoders.h"

#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <utility>

namespace gguf {
namespace {

constexpr int kHalf = 16;  // a byte of a small block holds 4 bits of value i, and 4 bits of value i + kHalf

int byte_at(const std::byte* bytes, int i) { return std::to_integer<int>(bytes[i]); }
int signed_at(const std::byte* bytes, int i) { return static_cast<std::int8_t>(bytes[i]); }
int low(const std::byte* bytes, int i) { return byte_at(bytes, i) & 15; }
int high(const std::byte* bytes, int i) { return byte_at(bytes, i) >> 4; }

float f16_at(const std::byte* bytes) {
  c10::Half value;
  std::memcpy(&value, bytes, sizeof value);
  return static_cast<float>(value);
}

template <class Number>
Number number_at(const std::byte* bytes) {
  Number value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// The codes of IQ4_NL and IQ4_XS, denser around zero: kvalues_iq4nl of ggml-common.h.
constexpr float kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Eight scales and eight minima of 6 bits in 12 bytes, as Q4_K and Q5_K have them. The upper 2 bits of the last four of each are above the
// 6 bits of the first four.
struct ScaleAndMin {
  float scale;
  float min;
};

ScaleAndMin packed_scale(const std::byte* packed, int i) {
  const auto [scale, min] =
      i < 4 ? std::pair(byte_at(packed, i) & 63, byte_at(packed, i + 4) & 63)
            : std::pair(low(packed, i + 4) | byte_at(packed, i - 4) >> 6 << 4, high(packed, i + 4) | byte_at(packed, i) >> 6 << 4);
  return {static_cast<float>(scale), static_cast<float>(min)};
}

}  // namespace

// d; 16 bytes
void decode_q4_0(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const std::byte* q = block + 2;
  for (int i = 0; i < kHalf; ++i) {
    values[i] = d * static_cast<float>(low(q, i) - 8);
    values[i + kHalf] = d * static_cast<float>(high(q, i) - 8);
  }
}

// d; m; 16 bytes
void decode_q4_1(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const float m = f16_at(block + 2);
  const std::byte* q = block + 4;
  for (int i = 0; i < kHalf; ++i) {
    values[i] = d * static_cast<float>(low(q, i)) + m;
    values[i + kHalf] = d * static_cast<float>(high(q, i)) + m;
  }
}

// d; the fifth bits; 16 bytes
void decode_q5_0(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const auto fifth = number_at<std::uint32_t>(block + 2);
  const std::byte* q = block + 6;
  for (int i = 0; i < kHalf; ++i) {
    values[i] = d * static_cast<float>((low(q, i) | static_cast<int>(fifth >> i & 1) << 4) - 16);
    values[i + kHalf] = d * static_cast<float>((high(q, i) | static_cast<int>(fifth >> (i + kHalf) & 1) << 4) - 16);
  }
}

// d; m; the fifth bits; 16 bytes
void decode_q5_1(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const float m = f16_at(block + 2);
  const auto fifth = number_at<std::uint32_t>(block + 4);
  const std::byte* q = block + 8;
  for (int i = 0; i < kHalf; ++i) {
    values[i] = d * static_cast<float>(low(q, i) | static_cast<int>(fifth >> i & 1) << 4) + m;
    values[i + kHalf] = d * static_cast<float>(high(q, i) | static_cast<int>(fifth >> (i + kHalf) & 1) << 4) + m;
  }
}

// d; 32 signed bytes
void decode_q8_0(const std::byte* block, float* values) {
  const float d = f16_at(block);
  for (int i = 0; i < 32; ++i) values[i] = d * static_cast<float>(signed_at(block + 2, i));
}

// 16 bytes with a scale and a minimum of 4 bits each; 64 bytes of 2 bits; d; m
void decode_q2_k(const std::byte* block, float* values) {
  const float d = f16_at(block + 80);
  const float m = f16_at(block + 82);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(low(block, group));
    const float min = m * static_cast<float>(high(block, group));
    const std::byte* q = block + 16 + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) *values++ = scale * static_cast<float>(byte_at(q, i) >> shift & 3) - min;
  }
}

// 32 bytes of third bits; 64 bytes of 2 bits; 12 bytes of 16 scales: 4 low bits each, then 2 high bits; d
void decode_q3_k(const std::byte* block, float* values) {
  const std::byte* scales = block + 96;
  const float d = f16_at(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int low_bits = byte_at(scales, group % 8) >> group / 8 * 4 & 15;
    const int high_bits = byte_at(scales, 8 + group % 4) >> group / 4 * 2 & 3;
    const float scale = d * static_cast<float>((low_bits | high_bits << 4) - 32);
    const std::byte* q = block + 32 + group / 8 * 32 + group % 2 * 16;
    const std::byte* third = block + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    // A third bit that is not set takes 4 away.
    for (int i = 0; i < 16; ++i)
      *values++ = scale * static_cast<float>((byte_at(q, i) >> shift & 3) + (byte_at(third, i) >> group / 2 & 1) * 4 - 4);
  }
}

// d; m; 12 bytes of scales and minima; 128 bytes
void decode_q4_k(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const float m = f16_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const auto [packed, packed_min] = packed_scale(block + 4, group);
    const float scale = d * packed;
    const float min = m * packed_min;
    const std::byte* q = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) *values++ = scale * static_cast<float>(byte_at(q, i) >> shift & 15) - min;
  }
}

// d; m; 12 bytes of scales and minima; 32 bytes of fifth bits; 128 bytes
void decode_q5_k(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const float m = f16_at(block + 2);
  const std::byte* fifth = block + 16;
  for (int group = 0; group < 8; ++group) {
    const auto [packed, packed_min] = packed_scale(block + 4, group);
    const float scale = d * packed;
    const float min = m * packed_min;
    const std::byte* q = block + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      *values++ = scale * static_cast<float>((byte_at(q, i) >> shift & 15) | (byte_at(fifth, i) >> group & 1) << 4) - min;
  }
}

// 128 bytes of 4 bits; 64 bytes of 2 high bits; 16 signed scales; d
void decode_q6_k(const std::byte* block, float* values) {
  const float d = f16_at(block + 208);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(signed_at(block + 192, group));
    const std::byte* q = block + group / 8 * 64 + group % 4 * 16;
    const int shift = group % 8 / 4 * 4;
    const std::byte* upper = block + 128 + group / 8 * 32 + group % 2 * 16;
    const int upper_shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i)
      *values++ = scale * static_cast<float>(((byte_at(q, i) >> shift & 15) | (byte_at(upper, i) >> upper_shift & 3) << 4) - 32);
  }
}

// d; 16 bytes of indexes
void decode_iq4_nl(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const std::byte* q = block + 2;
  for (int i = 0; i < kHalf; ++i) {
    values[i] = d * kIq4Values[low(q, i)];
    values[i + kHalf] = d * kIq4Values[high(q, i)];
  }
}

// d; 2 bytes with the 2 high bits of 8 scales; 4 bytes with their 4 low bits; 128 bytes of indexes
void decode_iq4_xs(const std::byte* block, float* values) {
  const float d = f16_at(block);
  const int high_bits = number_at<std::uint16_t>(block + 2);
  for (int group = 0; group < 8; ++group) {
    const int low_bits = byte_at(block + 4, group / 2) >> group % 2 * 4 & 15;
    const float scale = d * static_cast<float>((low_bits | (high_bits >> 2 * group & 3) << 4) - 32);
    const std::byte* q = block + 8 + group * kHalf;
    for (int i = 0; i < kHalf; ++i) {
      values[i] = scale * kIq4Values[low(q, i)];
      values[i + kHalf] = scale * kIq4Values[high(q, i)];
    }
    values += 2 * kHalf;
  }
}

}  // namespace gguf
