#include "host/library_check.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace qmill {

#if defined(__linux__)
namespace {

// ELF, 64 bit, little-endian (System V ABI, "Object Files"): offsets of the fields that matter.
constexpr std::size_t kElfHeaderBytes = 64;
constexpr std::uint16_t kSharedObject = 3;
#if defined(__x86_64__)
constexpr std::uint16_t kThisMachine = 62;
#elif defined(__aarch64__)
constexpr std::uint16_t kThisMachine = 183;
#elif defined(__riscv)
constexpr std::uint16_t kThisMachine = 243;
#else
constexpr std::uint16_t kThisMachine = 0;  // not checked
#endif

template <class Number>
Number field(const std::byte* bytes, std::size_t offset) {
  Number number;
  std::memcpy(&number, bytes + offset, sizeof number);
  return number;
}

bool lies_within(std::uint64_t offset, std::uint64_t bytes, std::uint64_t size) { return offset <= size && bytes <= size - offset; }

}  // namespace

std::string library_problem(const FileReader& reader) {
  std::array<std::byte, kElfHeaderBytes> header = {};
  if (reader.size() < kElfHeaderBytes) return fmt::format("it has {} bytes: not a shared library", reader.size());
  reader.read(0, header);
  const std::byte* at = header.data();
  if (std::memcmp(at,
                  "\x7f"
                  "ELF",
                  4) != 0)
    return "it is not a shared library of this system";
  const bool is_64_bit_little_endian = at[4] == std::byte{2} && at[5] == std::byte{1};
  const auto machine = field<std::uint16_t>(at, 18);
  if (!is_64_bit_little_endian || (kThisMachine != 0 && machine != kThisMachine))
    return fmt::format("it is for another processor (ELF machine {}, this one is {})", machine, kThisMachine);
  if (field<std::uint16_t>(at, 16) != kSharedObject) return "it is not a shared library";

  const auto segments_at = field<std::uint64_t>(at, 32);
  const auto sections_at = field<std::uint64_t>(at, 40);
  const auto segment_bytes = field<std::uint16_t>(at, 54);
  const auto segments = field<std::uint16_t>(at, 56);
  const std::uint64_t section_table = std::uint64_t{field<std::uint16_t>(at, 58)} * field<std::uint16_t>(at, 60);
  const std::string cut_short = fmt::format("it is cut short or damaged: it has {} bytes, its headers announce more", reader.size());
  if (!lies_within(segments_at, std::uint64_t{segments} * segment_bytes, reader.size())) return cut_short;
  if (!lies_within(sections_at, section_table, reader.size())) return cut_short;
  constexpr std::size_t kSegmentBytes = 56;
  if (segments == 0 || segment_bytes != kSegmentBytes) return "its table of segments is damaged";
  for (std::uint16_t i = 0; i < segments; ++i) {
    std::array<std::byte, kSegmentBytes> segment = {};
    reader.read(segments_at + std::uint64_t{i} * kSegmentBytes, segment);
    if (!lies_within(field<std::uint64_t>(segment.data(), 8), field<std::uint64_t>(segment.data(), 32), reader.size())) return cut_short;
  }
  return {};
}

#else

// Elsewhere the system's own loader refuses what is not a library.
std::string library_problem(const FileReader&) { return {}; }

#endif

}  // namespace qmill
