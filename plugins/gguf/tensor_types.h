// The types of tensors in GGUF files: enum ggml_type of https://github.com/ggml-org/ggml/blob/master/include/ggml.h.
#pragma once

#include "block_decoders.h"

#include <qmill/tensor_info.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace gguf {

inline constexpr std::size_t kMaxBlockValues = 256;

struct TensorType {
  std::string_view name;
  std::uint32_t block_values = 0;  // 0: qmill does not read this type
  std::uint32_t block_bytes = 0;
  qmill::DType dtype = qmill::DType::f32;  // as it is presented
  DecodeBlock decode = nullptr;            // null: the bytes of the file are the values
};

// Null: a number that was never given away, or has been withdrawn.
const TensorType* tensor_type(std::uint32_t number);

// "F32, F16, ... and BF16": all that are read.
std::string readable_types();

}  // namespace gguf
