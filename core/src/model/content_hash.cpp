#include "model/content_hash.h"

#include "io/hash.h"

#include <fmt/format.h>

#include <algorithm>

namespace qmill {

std::string content_hash(const TensorSource& source, std::size_t index, TaskPool& tasks) {
  constexpr std::uint64_t kPart = 4 << 20;
  const TensorInfo& info = source.tensors()[index];
  const auto bytes = static_cast<std::uint64_t>(info.bytes());
  const std::uint64_t parts = (bytes + kPart - 1) / kPart;
  std::vector<std::string> hashes(static_cast<std::size_t>(parts));
  tasks.parallel(static_cast<std::int64_t>(parts), [&](std::int64_t part) {
    thread_local std::vector<std::byte> buffer;
    const std::uint64_t begin = static_cast<std::uint64_t>(part) * kPart;
    buffer.resize(static_cast<std::size_t>(std::min(kPart, bytes - begin)));
    source.read_part(index, begin, buffer);
    hashes[static_cast<std::size_t>(part)] = hash_text(buffer);
  });
  std::string all = fmt::format("{} {} ", dtype_name(info.dtype), info.shape_text());
  for (const std::string& hash : hashes) all += hash;
  return hash_text(std::as_bytes(std::span(all)));
}

std::string header_hash(const TensorSource& source) {
  std::string all;
  for (const TensorInfo& tensor : source.tensors())
    all += fmt::format("{} {} {}\n", tensor.name, dtype_name(tensor.dtype), tensor.shape_text());
  for (const auto& [key, value] : source.metadata()) all += fmt::format("{}={}\n", key, value);
  return hash_text(std::as_bytes(std::span(all)));
}

}  // namespace qmill
