#include "core/src/model/renamed_source.h"
#include "core/src/readers/model_parts.h"

#include <qmill/error.h>

#include <cstdlib>
#include <set>

namespace {

using qmill::DType;

// Tensors of 8 rows of one byte, each its own number.
class Rows final : public qmill::TensorSource {
 public:
  std::vector<qmill::TensorInfo> infos;
  std::map<std::string, std::string> pairs;

  const std::vector<qmill::TensorInfo>& tensors() const override { return infos; }
  const std::map<std::string, std::string>& metadata() const override { return pairs; }
  std::vector<std::filesystem::path> files() const override { return {}; }
  std::optional<qmill::Extent> extent(std::size_t) const override { return std::nullopt; }
  void read_part(std::size_t index, std::uint64_t begin, std::span<std::byte> out) const override {
    if (begin + out.size() > static_cast<std::uint64_t>(infos[index].bytes())) std::abort();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(begin + i);
  }
};

}  // namespace

// The input is lines: "@key=value" of metadata, and names of tensors.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto rows = std::make_unique<Rows>();
  std::set<std::string> known;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line(text.substr(begin, end - begin));
    begin = end + 1;
    if (const std::size_t equals = line.find('='); line.starts_with('@') && equals != std::string::npos)
      rows->pairs.emplace(line.substr(1, equals - 1), line.substr(equals + 1));
    else if (known.insert(line).second)
      rows->infos.push_back({line, DType::u8, line.size() % 7 == 0 ? std::vector<std::int64_t>{8} : std::vector<std::int64_t>{8, 1}});
  }
  const std::size_t count = rows->infos.size();
  try {
    for (const char* architecture : {"", "qwen3", "t5", "sdxl"}) {
      const qmill::ModelParts parts(rows->infos, architecture, "");
      for (const qmill::TensorInfo& tensor : rows->infos) parts.of(tensor.name);
    }
    const std::unique_ptr<qmill::TensorSource> source = qmill::renamed(std::move(rows));
    std::set<std::string> names;
    for (std::size_t i = 0; i < count; ++i) {
      names.insert(source->tensors()[i].name);
      std::vector<std::byte> values(8);
      source->read(i, values);
      if (std::set<std::byte>(values.begin(), values.end()).size() != 8) std::abort();  // every row once
    }
    if (names.size() != count) std::abort();
  } catch (const qmill::Error&) {
  }
  return 0;
}
