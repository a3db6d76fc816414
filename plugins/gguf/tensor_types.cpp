#include "tensor_types.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <vector>

namespace gguf {
namespace {

using qmill::DType;

constexpr TensorType plain(std::string_view name, DType dtype, std::uint32_t bytes) { return {name, 1, bytes, dtype, nullptr}; }

constexpr TensorType blocks(std::string_view name, std::uint32_t values, std::uint32_t bytes, DecodeBlock decode) {
  return {name, values, bytes, DType::f32, decode};
}

constexpr TensorType unread(std::string_view name) { return {name}; }

// By number; without a name: none.
constexpr std::array kTypes = {
    plain("F32", DType::f32, 4),                // 0
    plain("F16", DType::f16, 2),                // 1
    blocks("Q4_0", 32, 18, decode_q4_0),        // 2
    blocks("Q4_1", 32, 20, decode_q4_1),        // 3
    unread(""),                                 // 4
    unread(""),                                 // 5
    blocks("Q5_0", 32, 22, decode_q5_0),        // 6
    blocks("Q5_1", 32, 24, decode_q5_1),        // 7
    blocks("Q8_0", 32, 34, decode_q8_0),        // 8
    unread("Q8_1"),                             // 9
    blocks("Q2_K", 256, 84, decode_q2_k),       // 10
    blocks("Q3_K", 256, 110, decode_q3_k),      // 11
    blocks("Q4_K", 256, 144, decode_q4_k),      // 12
    blocks("Q5_K", 256, 176, decode_q5_k),      // 13
    blocks("Q6_K", 256, 210, decode_q6_k),      // 14
    unread("Q8_K"),                             // 15
    unread("IQ2_XXS"),                          // 16
    unread("IQ2_XS"),                           // 17
    unread("IQ3_XXS"),                          // 18
    unread("IQ1_S"),                            // 19
    blocks("IQ4_NL", 32, 18, decode_iq4_nl),    // 20
    unread("IQ3_S"),                            // 21
    unread("IQ2_S"),                            // 22
    blocks("IQ4_XS", 256, 136, decode_iq4_xs),  // 23
    plain("I8", DType::i8, 1),                  // 24
    plain("I16", DType::i16, 2),                // 25
    plain("I32", DType::i32, 4),                // 26
    plain("I64", DType::i64, 8),                // 27
    plain("F64", DType::f64, 8),                // 28
    unread("IQ1_M"),                            // 29
    plain("BF16", DType::bf16, 2),              // 30
    unread(""),                                 // 31
    unread(""),                                 // 32
    unread(""),                                 // 33
    unread("TQ1_0"),                            // 34
    unread("TQ2_0"),                            // 35
    unread(""),                                 // 36
    unread(""),                                 // 37
    unread(""),                                 // 38
    unread("MXFP4"),                            // 39
    unread("NVFP4"),                            // 40
    unread("Q1_0"),                             // 41
};

}  // namespace

const TensorType* tensor_type(std::uint32_t number) {
  return number < kTypes.size() && !kTypes[number].name.empty() ? &kTypes[number] : nullptr;
}

std::string readable_types() {
  std::vector<std::string_view> names;
  for (const TensorType& type : kTypes)
    if (type.block_values != 0) names.push_back(type.name);
  const std::string_view last = names.back();
  names.pop_back();
  return fmt::format("{} and {}", fmt::join(names, ", "), last);
}

}  // namespace gguf
