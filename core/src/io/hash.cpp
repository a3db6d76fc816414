#include "io/hash.h"

#include <fmt/format.h>

#include <bit>
#include <cstdint>
#include <cstring>

namespace qmill {
namespace {

std::uint64_t finalized(std::uint64_t k) {
  k = (k ^ (k >> 33)) * 0xff51afd7ed558ccdu;
  k = (k ^ (k >> 33)) * 0xc4ceb9fe1a85ec53u;
  return k ^ (k >> 33);
}

}  // namespace

std::string hash_text(std::span<const std::byte> bytes) {
  constexpr std::uint64_t c1 = 0x87c37b91114253d5u;
  constexpr std::uint64_t c2 = 0x4cf5ad432745937fu;
  std::uint64_t h1 = 0, h2 = 0;
  const std::size_t blocks = bytes.size() / 16;
  for (std::size_t i = 0; i < blocks; ++i) {
    std::uint64_t k[2];
    std::memcpy(k, bytes.data() + i * 16, 16);
    h1 ^= std::rotl(k[0] * c1, 31) * c2;
    h1 = (std::rotl(h1, 27) + h2) * 5 + 0x52dce729;
    h2 ^= std::rotl(k[1] * c2, 33) * c1;
    h2 = (std::rotl(h2, 31) + h1) * 5 + 0x38495ab5;
  }
  std::uint64_t tail[2] = {};
  if (const std::size_t rest = bytes.size() % 16; rest != 0) std::memcpy(tail, bytes.data() + blocks * 16, rest);
  h2 ^= std::rotl(tail[1] * c2, 33) * c1;
  h1 ^= std::rotl(tail[0] * c1, 31) * c2;
  h1 ^= bytes.size();
  h2 ^= bytes.size();
  h1 += h2;
  h2 += h1;
  h1 = finalized(h1);
  h2 = finalized(h2);
  h1 += h2;
  h2 += h1;
  return fmt::format("{:016x}{:016x}", h1, h2);
}

}  // namespace qmill
