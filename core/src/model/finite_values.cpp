#include "model/finite_values.h"

#include <cstring>

namespace qmill {
namespace {

// A value is not finite when all bits of its exponent are set; `least` is the smallest such without the sign.
template <class Bits>
std::int64_t count_from(std::span<const std::byte> bytes, Bits least) {
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  const std::size_t count = bytes.size() / sizeof(Bits);
  std::int64_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + i * sizeof(Bits), sizeof(Bits));
    found += static_cast<Bits>(bits & static_cast<Bits>(~kSign)) >= least ? 1 : 0;
  }
  return found;
}

}  // namespace

std::int64_t count_not_finite(std::span<const std::byte> bytes, DType dtype) {
  switch (dtype) {
    case DType::f64:
      return count_from<std::uint64_t>(bytes, 0x7ff0000000000000);
    case DType::f32:
      return count_from<std::uint32_t>(bytes, 0x7f800000);
    case DType::bf16:
      return count_from<std::uint16_t>(bytes, 0x7f80);
    case DType::f16:
      return count_from<std::uint16_t>(bytes, 0x7c00);
    case DType::f8_e5m2:
      return count_from<std::uint8_t>(bytes, 0x7c);
    case DType::f8_e4m3:
      return count_from<std::uint8_t>(bytes, 0x7f);  // it has NaN only
    default:
      return 0;
  }
}

}  // namespace qmill
