#include "source.h"

#include "header.h"

#include <qmill/error.h>
#include <qmill/file_reader.h>

#include <c10/util/Half.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace gguf {
namespace {

using qmill::FileReader;

constexpr std::uint64_t kBlockOutput = kBlockValues * sizeof(float);

// d * q of every value: 11 bits times 8 bits, which F32 holds exactly.
void decode_block(const std::byte* block, float* out) {
  c10::Half factor;
  std::memcpy(&factor, block, sizeof factor);
  const auto d = static_cast<float>(factor);
  for (std::int64_t i = 0; i < kBlockValues; ++i) {
    std::int8_t q;
    std::memcpy(&q, block + sizeof factor + i, sizeof q);
    out[i] = d * static_cast<float>(q);
  }
}

class FileSource final : public qmill::TensorSource {
 public:
  explicit FileSource(const std::filesystem::path& path) : reader_(path) {
    try {
      Header header = parse_header(reader_.size(), [&](std::uint64_t offset, std::span<std::byte> out) { reader_.read(offset, out); });
      metadata_ = std::move(header.metadata);
      entries_ = std::move(header.entries);
    } catch (qmill::Error& error) {
      throw error.in(fmt::format("'{}'", path.string()));
    }
    for (const Entry& entry : entries_) tensors_.push_back(entry.info);
  }

  const std::vector<qmill::TensorInfo>& tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  std::vector<std::filesystem::path> files() const override { return {reader_.path()}; }

  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    const Entry& entry = entries_[index];
    if (!entry.is_q8_0) return reader_.read(entry.offset + begin, out);
    constexpr std::uint64_t kBlocksPerRead = 2048;
    std::vector<std::byte> stored;
    while (!out.empty()) {
      const std::uint64_t first = begin / kBlockOutput;
      const std::uint64_t last = std::min((begin + out.size() + kBlockOutput - 1) / kBlockOutput, first + kBlocksPerRead);
      stored.resize((last - first) * kBlockBytes);
      reader_.read(entry.offset + first * kBlockBytes, stored);
      for (std::uint64_t block = first; block < last; ++block) {
        float values[kBlockValues];
        decode_block(stored.data() + (block - first) * kBlockBytes, values);
        const std::uint64_t from = begin - block * kBlockOutput;  // not 0 only in the first block
        const std::size_t count = std::min<std::uint64_t>(kBlockOutput - from, out.size());
        std::memcpy(out.data(), reinterpret_cast<const std::byte*>(values) + from, count);
        out = out.subspan(count);
        begin += count;
      }
    }
  }

  std::optional<qmill::Extent> extent(std::size_t index) const override {
    const Entry& entry = entries_[index];
    if (entry.is_q8_0) return std::nullopt;
    return qmill::Extent{reader_.path(), entry.offset, entry.bytes};
  }

  void prefetch(std::size_t index) const override { reader_.prefetch(entries_[index].offset, entries_[index].bytes); }

 private:
  FileReader reader_;
  std::map<std::string, std::string> metadata_;
  std::vector<Entry> entries_;
  std::vector<qmill::TensorInfo> tensors_;
};

}  // namespace

std::unique_ptr<qmill::TensorSource> open_file(const std::filesystem::path& path) { return std::make_unique<FileSource>(path); }

}  // namespace gguf
