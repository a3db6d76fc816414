// Decodes the blocks in which GGUF files hold quantized values: one function per type, from the bytes of a block to its values in F32.
// Layouts: block_q4_0 and the like in https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. All numbers are little-endian.
#pragma once

#include <cstddef>

namespace gguf {

// `block` has the type's bytes per block, `values` room for its values (tensor_types.h). Any bytes are a block. Results have the roundings
// of the reference decoders, in their order.
using DecodeBlock = void (*)(const std::byte* block, float* values);

void decode_q4_0(const std::byte* block, float* values);
void decode_q4_1(const std::byte* block, float* values);
void decode_q5_0(const std::byte* block, float* values);
void decode_q5_1(const std::byte* block, float* values);
void decode_q8_0(const std::byte* block, float* values);
void decode_q2_k(const std::byte* block, float* values);
void decode_q3_k(const std::byte* block, float* values);
void decode_q4_k(const std::byte* block, float* values);
void decode_q5_k(const std::byte* block, float* values);
void decode_q6_k(const std::byte* block, float* values);
void decode_iq4_nl(const std::byte* block, float* values);
void decode_iq4_xs(const std::byte* block, float* values);

}  // namespace gguf
