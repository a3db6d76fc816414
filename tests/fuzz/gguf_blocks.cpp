#include "plugins/gguf/tensor_types.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

// The input is a block of every type, filled up with zeros: exactly its values are written, and the same ones each time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (std::uint32_t number = 0; number < 64; ++number) {
    const gguf::TensorType* type = gguf::tensor_type(number);
    if (type == nullptr || type->decode == nullptr) continue;
    // Of their own, so that sanitizers see what is beyond them.
    const auto block = std::make_unique<std::byte[]>(type->block_bytes);
    std::memcpy(block.get(), data, std::min<std::size_t>(size, type->block_bytes));
    constexpr std::size_t kGuard = 16;
    const std::size_t count = type->block_values;
    for (const float before : {1e30f, -1e30f}) {
      const auto values = std::make_unique<float[]>(count + kGuard);
      const auto again = std::make_unique<float[]>(count);
      std::fill_n(values.get(), count + kGuard, before);
      type->decode(block.get(), values.get());
      type->decode(block.get(), again.get());
      if (std::memcmp(values.get(), again.get(), count * sizeof(float)) != 0) std::abort();
      // No F16 factors and codes make as much.
      for (std::size_t i = 0; i < count; ++i)
        if (std::isfinite(values[i]) && std::abs(values[i]) > 1e9f) std::abort();
      for (std::size_t i = count; i < count + kGuard; ++i)
        if (values[i] != before) std::abort();
    }
  }
  return 0;
}
